"""`python -m jobs create-key --project default --name local` prints a new API key, once.

`new-secret-key` prints a key for `EGRPO_SECRET_KEYS`; `rekey` seals all encrypted values anew with the first of them.
Keys for the administration of projects need `--scope admin`, and `--scope '*'` if they are to do anything else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs import api_keys, sealing
from jobs.db import make_engine, make_session_factory, transaction
from jobs.errors import ServiceError
from jobs.rekey import rekey
from jobs.scopes import EVERYTHING, SCOPES
from jobs.settings import DatabaseSettings, SealingSettings, load


def create_key(project: str, name: str, scopes: Sequence[str] = (EVERYTHING,)) -> str:
    """Returns a new key of the project, which is made if it is not there."""
    engine = make_engine(load(DatabaseSettings), application="egrpo-admin")
    try:
        with transaction(make_session_factory(engine)) as session:
            return api_keys.create(session, api_keys.project_named(session, project), name, scopes)
    finally:
        engine.dispose()


def seal_anew() -> str:
    """Seals all encrypted values with the first key, and returns how many there were."""
    settings = load(SealingSettings)
    engine = make_engine(settings, application="egrpo-admin")
    try:
        return str(rekey(make_session_factory(engine), sealing.Sealer.of(settings)))
    finally:
        engine.dispose()


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; its result alone goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m jobs", description="Administration of the service.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create-key", help="print a new API key, once")
    create.add_argument("--project", default="default", help="made if it does not exist (default: %(default)s)")
    create.add_argument("--name", required=True, help="what the key is for")
    scope_help = "what it may do, several times for several (default: *, all but admin)"
    create.add_argument("--scope", action="append", choices=SCOPES, metavar="SCOPE", help=scope_help)
    commands.add_parser("new-secret-key", help="print a new key for EGRPO_SECRET_KEYS")
    commands.add_parser(
        "rekey", help="seal all encrypted values with the first of EGRPO_SECRET_KEYS; print their number"
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "create-key":
            print(create_key(options.project, options.name, options.scope or (EVERYTHING,)))
        else:
            print(sealing.new_key() if options.command == "new-secret-key" else seal_anew())
    except ServiceError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
