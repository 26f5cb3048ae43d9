"""Events of a job: appended with a number that has no gaps, read in order, and a wake-up for who waits.

The number comes from the job's own row, so appenders of one job wait for each other until commit: a reader that has
seen `seq` has seen everything before it. NOTIFY is only a wake-up; the table is the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.tables import Document, Event, Job

CHANNEL = "egrpo_events"


def append(session: Session, job_id: str, type: str, data: Document) -> int:
    """Appends one event and returns its number. Holds the job's row lock until the transaction ends.

    Raises:
        NotFound: there is no such job.
    """
    return append_all(session, job_id, [(type, data)])


def append_all(session: Session, job_id: str, events: Sequence[tuple[str, Document]]) -> int:
    """Appends events in order and returns the number of the last one; the wake-up is sent at commit.

    Raises:
        NotFound: there is no such job.
    """
    statement = (
        update(Job)
        .where(Job.id == job_id)
        .values(next_seq=Job.next_seq + len(events))
        .returning(Job.next_seq)
        .execution_options(synchronize_session=False)
    )
    after = session.scalar(statement)
    if after is None:
        raise NotFound(f"there is no job {job_id}")
    first = after - len(events)
    rows = [
        {"job_id": job_id, "seq": first + offset, "type": type_, "data": data}
        for offset, (type_, data) in enumerate(events)
    ]
    if rows:
        session.execute(insert(Event), rows)
        session.execute(select(func.pg_notify(CHANNEL, job_id)))
    return after - 1


def read(session: Session, job_id: str, *, after: int, limit: int) -> list[Event]:
    """Returns the events with a number above `after`, in order."""
    statement = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(limit)
    return list(session.scalars(statement))
