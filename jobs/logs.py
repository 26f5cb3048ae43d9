"""The log of a job: appended by who holds its lease, read from a number on or from its end.

Lines are numbered through all attempts. Only the newest `MAX_LINES` of a job are kept: a trainer that prints without
end costs a bounded amount of the database, and what it said last is what tells why it ended.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal, cast

from sqlalchemy import CursorResult, Select, delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.events import CHANNEL
from jobs.states import TERMINAL
from jobs.tables import Job, LogLine

# `output`: what the trainer's processes print; `trainer`: what it reports; `supervisor`: the worker, about the attempt.
Source = Literal["output", "trainer", "supervisor"]
Level = Literal["debug", "info", "warning", "error"]

MAX_LINES = 20_000
MAX_LINE_CHARS = 2_000
_FORGOTTEN_AT_ONCE = 5  # Jobs: with logs as long as they get, a transaction of seconds.


@dataclass(frozen=True)
class Line:
    """One line before it has a number."""

    source: Source
    level: Level
    message: str


def topic(job_id: str) -> str:
    """Returns the payload of the wake-ups for a job's log."""
    return f"{job_id}/logs"


def last_number(session: Session, job_id: str) -> int:
    """Returns the number of the last line, 0 without one. It stays that while the caller holds the job by `guard`."""
    return session.scalar(select(func.max(LogLine.number)).where(LogLine.job_id == job_id)) or 0


def append(session: Session, job_id: str, attempt: int, first: int, lines: Sequence[Line]) -> None:
    """Appends lines and drops the oldest ones that are too many. The caller holds the job by `leases.guard`.

    Args:
        session: An open transaction.
        job_id: The job.
        attempt: The attempt that they are of.
        first: Number of the first line; lines that have their numbers already are the same ones, sent again.
        lines: In order.
    """
    rows = [
        {"job_id": job_id, "number": number, "attempt": attempt, **asdict(line), "message": short(line.message)}
        for number, line in enumerate(lines, first)
    ]
    if not rows:
        return
    session.execute(insert(LogLine).on_conflict_do_nothing(), rows)
    session.execute(delete(LogLine).where(LogLine.job_id == job_id, LogLine.number < first + len(rows) - MAX_LINES))
    session.execute(select(func.pg_notify(CHANNEL, topic(job_id))))


def forget_old(session: Session, age: timedelta) -> int:
    """Deletes the logs of some jobs that ended so long ago and returns how many lines; call it until it is 0."""
    ended = (
        select(Job.id)
        .where(Job.status.in_(TERMINAL), Job.finished_at < func.now() - age)
        .where(exists().where(LogLine.job_id == Job.id))
        .order_by(Job.finished_at.desc())  # What ended before them has no log any more.
        .limit(_FORGOTTEN_AT_ONCE)
    )
    return cast("CursorResult[Any]", session.execute(delete(LogLine).where(LogLine.job_id.in_(ended)))).rowcount


def short(message: str) -> str:
    """Returns the message, cut to `MAX_LINE_CHARS` if it is longer, with how much was cut."""
    over = len(message) - MAX_LINE_CHARS
    return message if over <= 0 else f"{message[:MAX_LINE_CHARS]} … {over} more characters"


def read(
    session: Session, job_id: str, *, after: int, limit: int, attempt: int | None, sources: Collection[Source]
) -> list[LogLine]:
    """Returns the lines with a number above `after`, in order."""
    statement = _lines(job_id, attempt, sources).where(LogLine.number > after).order_by(LogLine.number).limit(limit)
    return list(session.scalars(statement))


def tail(
    session: Session, job_id: str, *, limit: int, attempt: int | None, sources: Collection[Source]
) -> list[LogLine]:
    """Returns the last lines, in order."""
    statement = _lines(job_id, attempt, sources).order_by(LogLine.number.desc()).limit(limit)
    return list(session.scalars(statement))[::-1]


def _lines(job_id: str, attempt: int | None, sources: Collection[Source]) -> Select[LogLine]:
    statement = select(LogLine).where(LogLine.job_id == job_id)
    if attempt is not None:
        statement = statement.where(LogLine.attempt == attempt)
    return statement.where(LogLine.source.in_(sources)) if sources else statement
