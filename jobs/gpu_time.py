"""How much GPU time attempts took: GPUs of the job times the time from claim to end, whatever the GPUs did.

A worker that died is counted until its lease ran out. In the pool `cpu` the processes of a job count like GPUs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.tables import Attempt, GPUTime, Job


@dataclass(frozen=True)
class DayOfGPUs:
    """What was used of one type of GPU on one day, UTC."""

    day: date
    gpu_type: str
    gpu_seconds: float


def add(
    session: Session, project_id: str, gpu_type: str, num_gpus: int, started_at: datetime, finished_at: datetime
) -> float:
    """Adds the GPU time of an attempt that has ended to its days, and returns it in seconds."""
    total = 0.0
    for day, seconds in by_day(started_at, finished_at):
        total += num_gpus * seconds
        statement = insert(GPUTime).values(
            project_id=project_id, day=day, gpu_type=gpu_type, gpu_seconds=num_gpus * seconds
        )
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[GPUTime.project_id, GPUTime.day, GPUTime.gpu_type],
                set_={"gpu_seconds": GPUTime.gpu_seconds + statement.excluded.gpu_seconds},
            )
        )
    return total


def by_day(start: datetime, end: datetime) -> Iterator[tuple[datetime, float]]:
    """Yields the first moment of each day, UTC, that a stretch of time touches, and its seconds in that day."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    while start < end:
        day = start.replace(hour=0, minute=0, second=0, microsecond=0)
        following = day + timedelta(days=1)
        yield day, (min(end, following) - start).total_seconds()
        start = following


def of_project(session: Session, project_id: str, first: date, last: date) -> list[DayOfGPUs]:
    """Returns what a project used on each day, UTC, both ends included, by type; attempts that run are in it."""
    bounds = GPUTime.day >= _midnight(first), GPUTime.day < _midnight(last) + timedelta(days=1)
    ended = select(GPUTime.day, GPUTime.gpu_type, GPUTime.gpu_seconds).where(GPUTime.project_id == project_id, *bounds)
    used: dict[tuple[date, str], float] = defaultdict(float)
    for day, gpu_type, seconds in session.execute(ended):
        used[day.date(), gpu_type] += seconds
    running = (
        select(Attempt.gpu_type, Attempt.num_gpus, Attempt.started_at, func.clock_timestamp())
        .join(Job, (Job.id == Attempt.job_id) & (Job.epoch == Attempt.epoch))
        .where(Job.project_id == project_id, Job.lease_owner.is_not(None))
    )
    for gpu_type, num_gpus, started_at, now in session.execute(running):
        for day, seconds in by_day(started_at, now):
            if first <= day.date() <= last:
                used[day.date(), gpu_type] += num_gpus * seconds
    return [DayOfGPUs(day, gpu_type, seconds) for (day, gpu_type), seconds in sorted(used.items())]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
