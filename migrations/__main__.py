"""`python -m migrations upgrade` brings the database to the newest schema that this code knows.

Several may start at once (replicas, a rollout): an advisory lock lets one work and the others wait. A database that is
ahead of the code (a rollback) is left as it is, with a warning and exit code 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from jobs.db import make_engine, translated_errors
from jobs.errors import ServiceError
from jobs.settings import DatabaseSettings, load

_LOCK = 0x6567_7270_6F00  # "egrpo", 0; the reaper has 1


def script_directory() -> ScriptDirectory:
    """Returns the migrations of this code."""
    return ScriptDirectory.from_config(_config())


def current_revision(connection: Connection) -> str | None:
    """Returns the revision of the database, None before the first migration."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection) -> str:
    """Upgrades under the lock and returns what was done, as a sentence."""
    connection.execute(text("SET statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": _LOCK})
    connection.commit()
    try:
        before = current_revision(connection)
        connection.commit()
        known = {revision.revision for revision in script_directory().walk_revisions()}
        if before is not None and before not in known:
            return f"warning: the database is ahead of this code (revision {before}); nothing was changed"
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
        after = current_revision(connection)
        return f"the database is at revision {after}" + (" already" if after == before else f" (was {before})")
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:id)"), {"id": _LOCK})
        connection.commit()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m migrations", description="The database schema.")
    parser.add_subparsers(dest="command", required=True).add_parser("upgrade", help="to the newest schema")
    parser.parse_args(arguments)
    try:
        engine = make_engine(load(DatabaseSettings), application="egrpo-migrations")
        with translated_errors(), engine.connect() as connection:
            print(upgrade(connection), file=sys.stderr)
        engine.dispose()
    except ServiceError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
