"""In which order, and about when, waiting jobs will be claimed: `jobs.queue`'s rules played through on a picture.

Pure: no database. The picture is of one moment; it is assumed that no job is added and that a running job ends when its
trainer says it will. Unknown times are infinite here.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobs.shared import considerately


class Waiting(NamedTuple):  # There may be very many.
    """A queued job. `gpu_type` None is any."""

    id: str
    project_id: str
    priority: int
    gpu_type: str | None
    num_gpus: int
    steps_left: int


@dataclass(frozen=True)
class Running:
    """A job that a worker holds, of that worker's pool. `seconds_left` is infinite where its trainer has not said."""

    project_id: str
    worker: str
    gpu_type: str
    num_gpus: int
    steps_per_second: float | None
    seconds_left: float


@dataclass(frozen=True)
class Slot:
    """A worker that takes jobs, whether it has one, and in how many seconds it is free."""

    gpu_type: str
    num_gpus: int
    is_busy: bool = False
    free_in: float = 0.0


class Turn(NamedTuple):
    """A job's place among those that wait for the same, from 1, and the seconds until its turn; infinite: unknown."""

    position: int
    eta_seconds: float


def turns(
    waiting: Iterable[Waiting], held_gpus: Mapping[str, int], slots: Sequence[Slot], seconds_per_step: float
) -> dict[str, Turn]:
    """Returns when each job's turn comes.

    Args:
        waiting: The jobs that compete, by age.
        held_gpus: How many GPUs each project's running jobs hold.
        slots: The workers that may take them.
        seconds_per_step: What a step will take; infinite where nobody knows.
    """
    free = [(slot.free_in, number, slot.num_gpus) for number, slot in enumerate(slots)]
    heapq.heapify(free)
    found: dict[str, Turn] = {}
    for position, job in enumerate(considerately(claim_order(waiting, held_gpus)), start=1):
        seconds = job.steps_left * seconds_per_step if job.steps_left else 0.0
        found[job.id] = Turn(position, _start(job, seconds, free))
    return found


def claim_order(waiting: Iterable[Waiting], held_gpus: Mapping[str, int]) -> Iterator[Waiting]:
    """Yields jobs as they would be claimed one after the other: class, fewest GPUs of the project, age."""
    classes: dict[int, dict[str, deque[Waiting]]] = defaultdict(lambda: defaultdict(deque))
    for job in waiting:
        classes[job.priority][job.project_id].append(job)
    held = defaultdict(int, held_gpus)
    for priority in sorted(classes, reverse=True):
        queues = classes[priority]
        heads = [(held[project], queue[0].id, project) for project, queue in queues.items()]
        heapq.heapify(heads)
        while heads:
            _, _, project = heads[0]
            job = queues[project].popleft()
            held[project] += job.num_gpus
            if queues[project]:
                heapq.heapreplace(heads, (held[project], queues[project][0].id, project))
            else:
                heapq.heappop(heads)
            yield job


def _start(job: Waiting, seconds: float, free: list[tuple[float, int, int]]) -> float:
    """Returns when the first worker that is wide enough is free, and has it work on the job."""
    narrow = []
    while free and free[0][2] < job.num_gpus:
        narrow.append(heapq.heappop(free))
    start = math.inf
    if free:
        start, number, num_gpus = free[0]
        heapq.heapreplace(free, (start + seconds, number, num_gpus))
    for each in narrow:
        heapq.heappush(free, each)
    return start


def slots_of(workers: Mapping[str, tuple[str, int]], running: Sequence[Running]) -> list[Slot]:
    """Returns the slots of the workers that take jobs (name → type and number of GPUs), busy or not.

    A worker that holds a job and has not been heard of otherwise is one, too.
    """
    busy = {job.worker: job for job in running}
    return [
        *(Slot(*pool) for name, pool in workers.items() if name not in busy),
        *(
            Slot(*workers.get(name, (job.gpu_type, job.num_gpus)), is_busy=True, free_in=job.seconds_left)
            for name, job in busy.items()
        ),
    ]


def seconds_per_step_of(running: Iterable[Running]) -> float:
    """Returns the median of what a step of the running jobs takes, or infinity."""
    rates = [job.steps_per_second for job in running if job.steps_per_second]
    return 1 / statistics.median(rates) if rates else math.inf
