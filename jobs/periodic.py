"""Who runs a periodic task: any number of maintenance processes, one of them at a time for each task.

A task is due a period after it was last started, or at once if its process died. As with jobs, a lease in the database
says whose turn it is, because tasks wait for the store and for receivers, which no transaction may. A process that
hangs for longer than its lease can overlap with the next, so tasks are written to be run twice.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.tables import PeriodicTask


def take(session: Session, name: str, owner: str, every: timedelta, lease: timedelta) -> float:
    """Gives a task that is due to a process. Returns 0, or in how many seconds to ask again.

    Args:
        session: An open transaction.
        name: The task's.
        owner: The process's, unlike any other's.
        every: The task's period.
        lease: How long the task is the process's without a renewal.
    """
    now = func.clock_timestamp()
    values = {"owner": owner, "lease_expires_at": now + lease, "started_at": now}
    free = and_(PeriodicTask.owner.is_(None), PeriodicTask.started_at <= now - every)
    abandoned = and_(PeriodicTask.owner.is_not(None), PeriodicTask.lease_expires_at <= now)
    # It asks for what it has: that it had finished could not be noted, and its lease is renewed with the others.
    unnoted = PeriodicTask.owner == owner
    statement = insert(PeriodicTask).values(name=name, **values)
    taken = session.scalar(
        statement.on_conflict_do_update(
            index_elements=[PeriodicTask.name], set_=values, where=or_(free, abandoned, unnoted)
        ).returning(PeriodicTask.name)
    )
    if taken is not None:
        return 0.0
    row = session.scalars(select(PeriodicTask).where(PeriodicTask.name == name)).one()
    asked_at = session.scalars(select(now)).one()
    next_at = row.started_at + every if row.owner is None else row.lease_expires_at
    seconds: float = (next_at - asked_at).total_seconds()
    return max(seconds, 0.01)


def renew(session: Session, owner: str, lease: timedelta) -> None:
    """Prolongs the leases of everything that the process runs; one that ran out is not revived."""
    held = (PeriodicTask.owner == owner, PeriodicTask.lease_expires_at > func.clock_timestamp())
    session.execute(update(PeriodicTask).where(*held).values(lease_expires_at=func.clock_timestamp() + lease))


def finish(session: Session, name: str, owner: str, error: str | None) -> None:
    """Notes that the process has run the task, and what went wrong."""
    mine = (PeriodicTask.name == name, PeriodicTask.owner == owner)
    values = {"owner": None, "finished_at": func.clock_timestamp(), "error": error}
    session.execute(update(PeriodicTask).where(*mine).values(values))


def hand_back(session: Session, owner: str) -> None:
    """Lets other processes take at once what this one has not finished."""
    mine = PeriodicTask.owner == owner
    session.execute(update(PeriodicTask).where(mine).values(lease_expires_at=func.clock_timestamp()))
