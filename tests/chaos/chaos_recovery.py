"""How long the jobs that ran when a fault began were held up by it, read from the rows that they left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from chaos_faults import Struck
from chaos_invariants import Evidence
from sqlalchemy import func, or_, select

from jobs.tables import Attempt, Checkpoint, Job


def recovery_s(found: Evidence, struck: Struck) -> float:
    """Returns the seconds until every job that ran then had committed its next checkpoint, or had ended, or paused.

    Other faults may have come in between: they count too.
    """
    then = datetime.fromtimestamp(struck.began, UTC)
    ran = select(Attempt.job_id).where(
        Attempt.started_at <= then, or_(Attempt.finished_at.is_(None), Attempt.finished_at > then)
    )
    next_commit = (
        select(func.min(Checkpoint.created_at))
        .where(Checkpoint.job_id == Job.id, Checkpoint.created_at > then)
        .scalar_subquery()
    )
    of_job = select(func.min(Attempt.finished_at)).where(Attempt.job_id == Job.id, Attempt.finished_at > then)
    next_end = of_job.where(Attempt.outcome != "queued").scalar_subquery()
    last_end = select(func.max(Attempt.finished_at)).where(Attempt.job_id == Job.id).scalar_subquery()
    moments = found.session.execute(select(next_commit, next_end, last_end).where(Job.id.in_(ran)))
    later = [min(moment for moment in row if moment is not None and moment > then) for row in moments]
    return max([(moment - then).total_seconds() for moment in later], default=0.0)


def slowest_recoveries(found: Evidence, all_struck: Sequence[Struck]) -> list[str]:
    """Returns a line for each kind: how often, and its slowest recovery."""
    seconds: dict[str, list[float]] = {}
    for struck in all_struck:
        seconds.setdefault(struck.kind, []).append(recovery_s(found, struck))
    return [f"{kind:20} {len(each):4} times, slowest recovery {max(each):5.1f} s" for kind, each in seconds.items()]
