"""Workers that poll the queue, and why a job waits.

A worker calls `beat` whenever it looks for work and while it trains; nothing else depends on it. The lease alone says
who runs a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from typing_extensions import TypedDict  # pydantic reads these, and needs this one below Python 3.12

from jobs import jobs as jobs_
from jobs.states import HELD
from jobs.tables import Job, Worker

_SEEN_LATELY = text("interval '60 seconds'")


class QueueReason(TypedDict):
    """Why a queued job waits."""

    code: str
    message: str


class QueuePlace(TypedDict):
    """Where a queued job stands."""

    position: int
    reason: QueueReason


def beat(session: Session, owner: str) -> None:
    """Notes that a worker is there."""
    statement = insert(Worker).values(owner=owner, last_seen_at=func.clock_timestamp())
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Worker.owner], set_={"last_seen_at": statement.excluded.last_seen_at}
        )
    )


def queue_places(session: Session, jobs: Sequence[Job]) -> Mapping[str, QueuePlace]:
    """Returns position and reason for the queued ones of the given jobs."""
    positions = jobs_.queue_positions(session, jobs)
    if not positions:
        return {}
    now = session.scalars(select(func.clock_timestamp())).one()
    capacity = _capacity_reason(session)
    places: dict[str, QueuePlace] = {}
    for job in jobs:
        if (position := positions.get(job.id)) is None:
            continue
        reason = capacity
        if job.not_before is not None and job.not_before > now:
            seconds = (job.not_before - now).total_seconds()
            reason = {"code": "back_off", "message": f"tried again in {seconds:.0f} s"}
        elif position > 1:
            reason = {"code": "behind_other_jobs", "message": f"{position - 1} queued before it; {capacity['message']}"}
        places[job.id] = {"position": position, "reason": reason}
    return places


def _capacity_reason(session: Session) -> QueueReason:
    """Returns what the head of the queue waits for."""
    lately = select(func.count()).where(Worker.last_seen_at > func.clock_timestamp() - _SEEN_LATELY)
    running = select(func.count()).where(Job.status.in_(HELD), Job.lease_expires_at > func.clock_timestamp())
    num_running = session.scalars(running).one()
    if num_running:
        return {"code": "workers_busy", "message": f"{num_running} running; waits for a free worker"}
    if session.scalars(lately).one():
        return {"code": "starting", "message": "a worker is about to take it"}
    return {"code": "no_worker", "message": "no worker has looked for work in the last minute"}
