"""`python -m worker gc [--dry-run]`: one round of the garbage collector, for operators."""

from jobs.db import make_engine, make_session_factory
from jobs.settings import Settings, load
from jobs.store import ObjectStore
from worker.garbage import Report, collect


def run_gc(*, dry_run: bool) -> str:
    """Goes through the store once and returns what to tell of it.

    Raises:
        ServiceError: A setting is missing, or the store or the database is down; what was done is done.
    """
    settings = load(Settings)
    engine = make_engine(settings, application="egrpo-gc")
    try:
        report = collect(make_session_factory(engine), ObjectStore(settings), settings, dry_run=dry_run)
    finally:
        engine.dispose()
    return text_of(report, grace_hours=settings.gc_grace_seconds / 3600, dry_run=dry_run)


def text_of(report: Report, *, grace_hours: float, dry_run: bool) -> str:
    """Returns a report as an operator reads it."""
    waiting = report.orphans - report.removed
    lines = [
        f"{report.objects} objects looked at",
        f"{report.removed} objects without a row removed, {report.checkpoints_purged} deleted checkpoints emptied: "
        f"{report.removed_bytes} bytes",
        f"{waiting} objects without a row marked; they go when none names them {grace_hours:g} hours later",
        f"{report.uploads_aborted} of {report.uploads} uploads that were cut off given up",
        f"{report.states_expired} states and {report.samples_expired} samples of jobs that ended long ago let go of",
        *[f"{report.refused} objects that the store refused to remove are tried again"] * (report.refused > 0),
        *(f"missing, though a row names it: {key}" for key in report.missing),
        *(f"left alone, no such project: {project_id}" for project_id in report.foreign),
    ]
    return "\n".join(["dry run: nothing was changed; this would have been done:"] * dry_run + lines)
