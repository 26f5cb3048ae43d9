"""`python -m jobs create-key --project default --name local` prints a new API key, once."""

from __future__ import annotations

import argparse
import sys

from jobs import api_keys
from jobs.db import make_engine, make_session_factory, transaction
from jobs.errors import ServiceError
from jobs.settings import DatabaseSettings, load


def create_key(project: str, name: str) -> str:
    """Returns a new key of the project, which is made if it is not there."""
    engine = make_engine(load(DatabaseSettings), application="egrpo-admin")
    try:
        with transaction(make_session_factory(engine)) as session:
            return api_keys.create(session, api_keys.project_named(session, project), name)
    finally:
        engine.dispose()


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; the key alone goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m jobs", description="Administration of the service.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create-key", help="print a new API key, once")
    create.add_argument("--project", default="default", help="made if it does not exist (default: %(default)s)")
    create.add_argument("--name", required=True, help="what the key is for")
    options = parser.parse_args(arguments)
    try:
        print(create_key(options.project, options.name))
    except ServiceError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
