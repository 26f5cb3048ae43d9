"""Where a queued job stands: its place, why it waits, and about when its turn comes.

Places are worked out for the whole queue from one picture of it. A long queue's picture is shared by the requests of a
process for a while, so that reading a job costs the same however long the queue is.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from typing_extensions import TypedDict  # pydantic reads these, and needs this one below Python 3.12

from jobs import workers
from jobs.db import SHARED_PICTURE
from jobs.queue import LIMITS
from jobs.queue_order import Running, Slot, Turn, Waiting, seconds_per_step_of, slots_of, turns
from jobs.shared import Shared, considerately
from jobs.states import Status
from jobs.tables import Job

_SHARED_FROM = 200  # A shorter queue is looked at anew each time.


class QueueReason(TypedDict):
    """Why a queued job waits."""

    code: str
    message: str


class QueuePlace(TypedDict):
    """Where a queued job stands among those that wait for the same, and in how many seconds its turn may come."""

    position: int
    reason: QueueReason
    eta_seconds: float | None


@dataclass(frozen=True)
class Limits:
    """What a project may run at once and in a month, and what it does; only of projects that have limits."""

    num_jobs: int
    max_jobs: int | None
    max_gpu_hours: float | None
    has_hours: bool
    next_month: datetime

    @property
    def is_full(self) -> bool:
        """Whether as many jobs run as may run at once."""
        return self.max_jobs is not None and self.num_jobs >= self.max_jobs

    @property
    def binds(self) -> bool:
        """Whether none of the project's jobs may start now."""
        return self.is_full or not self.has_hours


@dataclass(frozen=True)
class Among:
    """What jobs wait for together: their own project at its limit, or the workers of a pool, wide enough or not."""

    project_id: str | None
    gpu_type: str | None
    fits: bool


@dataclass
class Picture:
    """The queue, what runs, the workers and the projects with limits, all of one moment."""

    waiting: list[Waiting]
    running: list[Running]
    workers: list[workers.Seen]
    limits: dict[str, Limits]
    _turns: dict[Among, Mapping[str, Turn]] = field(default_factory=dict)
    _asked: set[Among] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _slots: dict[str | None, list[Slot]] = field(default_factory=dict)
    _fitting: dict[tuple[int, str | None], tuple[int, int]] = field(default_factory=dict)

    def slots_for(self, gpu_type: str | None) -> list[Slot]:
        """Returns the workers, busy or idle, that take jobs of that type."""
        if gpu_type not in self._slots:
            self._slots[gpu_type] = self._slots_of(gpu_type)
        return self._slots[gpu_type]

    def _slots_of(self, gpu_type: str | None) -> list[Slot]:
        taking = {seen.owner: (seen.gpu_type, seen.num_gpus) for seen in self.workers if seen.takes_jobs}
        leaving = {seen.owner for seen in self.workers if not seen.takes_jobs}
        slots = slots_of(taking, [job for job in self.running if job.worker not in leaving])
        return [slot for slot in slots if gpu_type in (None, slot.gpu_type)]

    def fitting(self, num_gpus: int, gpu_type: str | None) -> tuple[int, int]:
        """Returns how many workers are wide enough for a job, and how many of them are busy."""
        wanted = (num_gpus, gpu_type)
        if wanted not in self._fitting:
            busy = [slot.is_busy for slot in self.slots_for(gpu_type) if slot.num_gpus >= num_gpus]
            self._fitting[wanted] = (len(busy), sum(busy))
        return self._fitting[wanted]

    def turns_among(self, job: Job) -> Mapping[str, Turn]:
        """Returns the turns of the jobs that wait for the same as this one, of the project or of the pool."""
        if self.binds(job):
            among = Among(job.project_id, None, fits=True)
        else:
            among = Among(None, job.gpu_type, job.num_gpus <= _widest(self.slots_for(job.gpu_type)))
        self._asked.add(among)
        return self._turns_of(among)

    def prepare(self, before: Picture) -> None:
        """Works out what the picture before it was asked for, before anybody asks this one."""
        for among in before._asked.copy():
            if among.project_id is None or among.project_id in self.limits:
                self._turns_of(among)

    def _turns_of(self, among: Among) -> Mapping[str, Turn]:
        with self._lock:  # One thread works it out, and who asks for the same meanwhile waits for it.
            if among not in self._turns:
                project_id = among.project_id
                self._turns[among] = self._of_pool(among) if project_id is None else self._of_project(project_id)
            return self._turns[among]

    def binds(self, job: Job) -> bool:
        """Whether the job waits for its own project, whatever the workers do."""
        return job.project_id in self.limits and self.limits[job.project_id].binds

    def _of_pool(self, among: Among) -> Mapping[str, Turn]:
        slots = self.slots_for(among.gpu_type)
        types, widest = {None, *(slot.gpu_type for slot in slots), among.gpu_type}, _widest(slots)
        bound = {project_id for project_id, limits in self.limits.items() if limits.binds}
        competing = [
            other
            for other in self.waiting
            if other.gpu_type in types and (other.num_gpus <= widest) == among.fits and other.project_id not in bound
        ]
        held: dict[str, int] = {}
        for running in self.running:
            held[running.project_id] = held.get(running.project_id, 0) + running.num_gpus
        of_pool = [running for running in self.running if among.gpu_type in (None, running.gpu_type)]
        return turns(competing, held, slots, seconds_per_step_of(of_pool))

    def _of_project(self, project_id: str) -> Mapping[str, Turn]:
        own = [job for job in self.waiting if job.project_id == project_id]
        running = [job for job in self.running if job.project_id == project_id]
        # Its running jobs are what it waits for: each is a slot of any width. Hours come back with the next month only.
        slots = [Slot(job.gpu_type, 8, is_busy=True, free_in=job.seconds_left) for job in running]
        return turns(own, {}, slots if self.limits[project_id].has_hours else [], seconds_per_step_of(running))


def queue_places(session: Session, jobs: Sequence[Job]) -> Mapping[str, QueuePlace]:
    """Returns the places of the queued ones of the given jobs."""
    queued = [job for job in jobs if job.status == Status.QUEUED]
    if not queued:
        return {}
    picture = _picture(session)
    has_times = any(job.not_before or job.avoid_until for job in queued)
    now = session.scalar(select(func.clock_timestamp())) if has_times else None
    return {job.id: _place(picture, job, now) for job in queued}


def obstacles(session: Session, project_id: str, num_gpus: int, gpu_type: str | None) -> list[QueueReason]:
    """Returns why a job of the project that was queued now would wait however short the queue is."""
    picture = _picture(session)
    found: list[QueueReason] = []
    limits = picture.limits.get(project_id)
    if limits is not None and not limits.has_hours:
        code, message = _limit(limits)
        found.append({"code": code, "message": message})
    if num_gpus > _widest(picture.slots_for(gpu_type)):
        found.append(_no_worker(picture, num_gpus, gpu_type))
    return found


def gpu_types(session: Session, num_gpus: int) -> set[str]:
    """Returns the types of GPU of the workers that take jobs and have that many; `cpu` for none."""
    return {slot.gpu_type for slot in _picture(session).slots_for(None) if slot.num_gpus >= num_gpus}


def _picture(session: Session) -> Picture:
    shared: Shared[Picture] = session.info[SHARED_PICTURE]
    return shared.read(lambda: _take_picture(session, shared.last), lambda made: len(made.waiting) >= _SHARED_FROM)


def _widest(slots: Sequence[Slot]) -> int:
    return max((slot.num_gpus for slot in slots), default=-1)


def _place(picture: Picture, job: Job, now: datetime | None) -> QueuePlace:
    among = picture.turns_among(job)
    turn = among.get(job.id) or Turn(len(among) + 1, math.inf)  # Younger than the picture: last.
    wait_s = (job.not_before - now).total_seconds() if job.not_before is not None and now is not None else 0.0
    eta_seconds = max(turn.eta_seconds, wait_s)
    return {
        "position": turn.position,
        "reason": _avoids(job, now) or _reason(picture, job, turn.position, wait_s),
        "eta_seconds": round(eta_seconds, 1) if math.isfinite(eta_seconds) else None,
    }


def _avoids(job: Job, now: datetime | None) -> QueueReason | None:
    """Returns that the job is kept from a worker, if it is and its back-off is over."""
    if now is None or job.avoid_until is None or job.avoid_until <= now or (job.not_before and job.not_before > now):
        return None
    return {"code": "elsewhere", "message": f"kept from worker {job.avoid_worker} until {job.avoid_until:%H:%M:%SZ}"}


def _reason(picture: Picture, job: Job, position: int, wait_s: float) -> QueueReason:
    if wait_s > 0:
        return {"code": "back_off", "message": f"tried again in {wait_s:.0f} s"}
    before = f"{position - 1} queued before it" if position > 1 else ""
    if picture.binds(job):
        code, message = _limit(picture.limits[job.project_id])
        return {"code": code, "message": f"{before}; {message}" if before else message}
    num_fitting, num_busy = picture.fitting(job.num_gpus, job.gpu_type)
    if num_fitting == 0:
        return _no_worker(picture, job.num_gpus, job.gpu_type)
    busy = f"{num_busy} of {num_fitting} workers busy"
    if position > 1:
        return {"code": "behind_other_jobs", "message": f"{before}; {busy}"}
    if num_busy == num_fitting:
        return {"code": "workers_busy", "message": f"{busy}; waits for a free one"}
    return {"code": "starting", "message": "a worker is about to take it"}


def _limit(limits: Limits) -> tuple[str, str]:
    if not limits.has_hours:
        hours = f"the project's {limits.max_gpu_hours:g} GPU hours of this month are used up"
        return "quota_used_up", f"{hours}; the next begin at {limits.next_month:%Y-%m-%dT%H:%MZ}"
    return "project_limit", f"the project runs {limits.num_jobs} jobs, and may run {limits.max_jobs} at once"


def _no_worker(picture: Picture, num_gpus: int, gpu_type: str | None) -> QueueReason:
    if not picture.workers and not picture.running:
        return {"code": "no_worker", "message": "no worker has looked for work in the last minute"}
    wanted = f"{num_gpus} GPUs of {f'type {gpu_type}' if gpu_type else 'one type'}"
    able = [seen for seen in picture.workers if seen.num_gpus >= num_gpus and gpu_type in (None, seen.gpu_type)]
    for seen in able:
        if not seen.is_draining and seen.refusal is not None:
            return {
                "code": "workers_refusing",
                "message": f"no worker with {wanted} takes jobs now; {seen.owner}: {seen.refusal}",
            }
    if able:
        return {"code": "workers_draining", "message": f"every worker with {wanted} is being drained"}
    seen_types = sorted({f"{seen.num_gpus} x {seen.gpu_type}" for seen in picture.workers})
    there = ", ".join(seen_types) or "none"
    return {"code": "no_matching_worker", "message": f"no worker has {wanted}; there are: {there}"}


def _take_picture(session: Session, before: Picture | None) -> Picture:
    picture = Picture(
        waiting=[Waiting._make(row) for row in considerately(session.execute(_WAITING))],
        running=[Running(*row) for row in session.execute(_RUNNING)],
        workers=workers.seen_lately(session),
        limits={row.id: Limits(*row[1:]) for row in session.execute(LIMITS)},
    )
    if before is not None:
        picture.prepare(before)
    return picture


_WAITING = text("""
    SELECT id, project_id, priority, gpu_type, num_gpus,
           (progress ->> 'total_steps')::int - (progress ->> 'step')::int
    FROM jobs WHERE status = 'queued' ORDER BY id
""")
_RUNNING = text("""
    SELECT j.project_id, j.lease_owner, a.gpu_type, j.num_gpus, (j.progress ->> 'steps_per_second')::float8,
           greatest(0, coalesce((j.progress ->> 'eta_seconds')::float8, 'Infinity')
                       - extract(epoch FROM clock_timestamp() - j.updated_at))
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.epoch = j.epoch
    WHERE j.lease_owner IS NOT NULL
""")
