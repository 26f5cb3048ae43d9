"""Workers: who is there, what they have, and who is to take no more jobs.

A worker calls `register` when it starts, `beat` while it lives and `leave` when it ends in order. No lease depends on
any of it. A row that nobody renews is one of a worker that was killed; `remove_dead` takes such rows away.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.queue import Pool
from jobs.tables import Job, Worker

SEEN_LATELY = timedelta(seconds=60)
DEAD_AFTER = timedelta(days=1)


@dataclass(frozen=True)
class Seen:
    """A worker that was there lately."""

    owner: str
    gpu_type: str
    num_gpus: int
    is_draining: bool
    refusal: str | None
    job_id: str | None
    last_seen_at: datetime

    @property
    def takes_jobs(self) -> bool:
        """Whether it takes the next job, at once or after the one that it runs."""
        return not self.is_draining and (self.refusal is None or self.job_id is not None)


def register(session: Session, owner: str, pool: Pool, refusal: str | None = None) -> None:
    """Notes that a worker has started. One that was drained under the same name takes jobs again."""
    _upsert(session, owner, pool, refusal=refusal, started_at=func.clock_timestamp(), draining_at=None)


def beat(session: Session, owner: str, pool: Pool, refusal: str | None = None) -> None:
    """Notes that a worker is there, what it has, and why it takes no jobs if it takes none."""
    _upsert(session, owner, pool, refusal=refusal)


def leave(session: Session, owner: str) -> None:
    """Forgets a worker that ends."""
    session.execute(delete(Worker).where(Worker.owner == owner))


def drain(session: Session, owner: str, *, undo: bool = False) -> None:
    """Has a worker take no more jobs, or take jobs again. What it runs, it runs to the end.

    Raises:
        NotFound: there is no such worker; the message names those there are.
    """
    draining_at = None if undo else func.coalesce(Worker.draining_at, func.clock_timestamp())
    statement = update(Worker).where(Worker.owner == owner).values(draining_at=draining_at).returning(Worker.owner)
    if session.scalar(statement) is None:
        there = ", ".join(repr(seen.owner) for seen in seen_lately(session)) or "none"
        raise NotFound(f"there is no worker {owner!r}; there are: {there}")


def is_draining(session: Session, owner: str) -> bool:
    """Returns whether a worker is to take no more jobs."""
    return session.scalar(select(Worker.draining_at).where(Worker.owner == owner)) is not None


def is_another(session: Session, job: Job) -> bool:
    """Returns whether a worker other than the one that holds the job was there lately, takes jobs, and has its GPUs."""
    statement = select(Worker.owner).where(
        Worker.owner != job.lease_owner,
        Worker.draining_at.is_(None),
        Worker.refusal.is_(None),
        Worker.num_gpus >= job.num_gpus,
        true() if job.gpu_type is None else Worker.gpu_type == job.gpu_type,
        Worker.last_seen_at > func.clock_timestamp() - SEEN_LATELY,
    )
    return session.scalar(statement.limit(1)) is not None


def seen_lately(session: Session) -> list[Seen]:
    """Returns the workers that were there in the last minute, by name."""
    statement = (
        select(
            Worker.owner,
            Worker.gpu_type,
            Worker.num_gpus,
            Worker.draining_at.is_not(None),
            Worker.refusal,
            Job.id,
            Worker.last_seen_at,
        )
        .outerjoin(Job, Job.lease_owner == Worker.owner)
        .where(Worker.last_seen_at > func.clock_timestamp() - SEEN_LATELY)
        .order_by(Worker.owner)
    )
    return [Seen(*row) for row in session.execute(statement)]


def remove_dead(session: Session) -> int:
    """Removes the rows of workers that nobody has heard of for a day. Returns how many."""
    dead = Worker.last_seen_at < func.clock_timestamp() - DEAD_AFTER
    return len(session.scalars(delete(Worker).where(dead).returning(Worker.owner)).all())


def _upsert(session: Session, owner: str, pool: Pool, **changes: object) -> None:
    values = {"gpu_type": pool.gpu_type, "num_gpus": pool.num_gpus, "last_seen_at": func.clock_timestamp(), **changes}
    statement = insert(Worker).values(owner=owner, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[Worker.owner], set_=values))
