"""What an operator asks of workers that run, by the database, and of the store.

`python -m worker list | drain NAME | undrain NAME | gc [--dry-run]`.
"""

import argparse
import sys

from jobs import workers
from jobs.db import make_engine, make_session_factory, transaction
from jobs.errors import ServiceError
from jobs.settings import DatabaseSettings, load
from worker.gc_command import run_gc


def main(arguments: list[str]) -> int:
    """Runs one command; what it answers goes to stdout."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "gc":
            print(run_gc(dry_run=options.dry_run))
            return 0
        engine = make_engine(load(DatabaseSettings), application="egrpo-admin")
        try:
            with transaction(make_session_factory(engine)) as session:
                if options.command != "list":
                    workers.drain(session, options.name, undo=options.command == "undrain")
                print(table(workers.seen_lately(session)))
        finally:
            engine.dispose()
    except ServiceError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 1
    return 0


def table(seen: list[workers.Seen]) -> str:
    """Returns the workers that were there in the last minute, one a line."""
    rows = [("WORKER", "GPUS", "STATE", "JOB")]
    for worker in seen:
        state = "draining" if worker.is_draining else "taking jobs" if worker.takes_jobs else "refusing"
        if worker.is_draining and worker.job_id is None:
            state = "drained"
        rows.append((worker.owner, f"{worker.num_gpus} x {worker.gpu_type}", state, worker.job_id or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Without a command: runs a worker.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("maintenance", help="run the periodic tasks instead of jobs")  # `__main__` does that.
    commands.add_parser("list", help="the workers that were there in the last minute")
    gc = commands.add_parser("gc", help="remove from the store what nobody needs")
    gc.add_argument("--dry-run", action="store_true", help="change nothing, tell what would be done")
    for command, does in (
        ("drain", "have a worker end its job and take no more"),
        ("undrain", "have it take jobs again"),
    ):
        commands.add_parser(command, help=does).add_argument("name", help="as `list` shows it")
    return parser
