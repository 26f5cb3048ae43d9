"""The rules of the claim played through: order, and when each job's turn comes."""

import itertools
import math

import pytest

from jobs.queue_order import Running, Slot, Turn, Waiting, claim_order, seconds_per_step_of, slots_of, turns
from jobs.shared import Shared


def waiting(id_: str, project: str = "a", *, priority: int = 0, gpus: int = 1, steps: int = 10) -> Waiting:
    return Waiting(id_, project, priority, None, gpus, steps)


def running(worker: str, seconds_left: float, rate: float | None = 2.0) -> Running:
    return Running("a", worker, "cpu", 1, rate, seconds_left)


def order(jobs: list[Waiting], **held: int) -> list[str]:
    return [job.id for job in claim_order(jobs, held)]


def test_class_then_fewest_gpus_then_age() -> None:
    jobs = [waiting("1"), waiting("2"), waiting("3", "b"), waiting("4", "b"), waiting("5", priority=10)]
    assert order(jobs) == ["5", "3", "1", "4", "2"]
    assert order(jobs[:4]) == ["1", "3", "2", "4"]
    assert order(jobs[:4], a=2) == ["3", "4", "1", "2"]


def test_wide_jobs_use_up_their_projects_share() -> None:
    jobs = [waiting("1", gpus=4), waiting("2"), *(waiting(str(n), "b") for n in range(3, 7))]
    assert order(jobs) == ["1", "3", "4", "5", "6", "2"]


def test_a_turn_comes_when_a_worker_is_free() -> None:
    slots = [Slot("cpu", 1, True, 5.0), Slot("cpu", 1, True, 30.0)]
    jobs = [waiting(str(n)) for n in range(1, 5)]
    etas = {id_: turn.eta_seconds for id_, turn in turns(jobs, {}, slots, 1.0).items()}
    assert etas == {"1": 5.0, "2": 15.0, "3": 25.0, "4": 30.0}


def test_a_wide_job_waits_for_a_wide_worker() -> None:
    slots = [Slot("h100", 1), Slot("h100", 8, True, 60.0)]
    found = turns([waiting("1", gpus=8), waiting("2"), waiting("3", gpus=9)], {}, slots, 1.0)
    assert found == {"1": Turn(1, 60.0), "2": Turn(2, 0.0), "3": Turn(3, math.inf)}


def test_what_nobody_knows_is_infinite() -> None:
    jobs = [waiting("1"), waiting("2")]
    assert [turn.eta_seconds for turn in turns(jobs, {}, [Slot("cpu", 1, True, 7.0)], math.inf).values()] == [
        7.0,
        math.inf,
    ]
    assert [turn.eta_seconds for turn in turns(jobs, {}, [], 1.0).values()] == [math.inf, math.inf]
    assert seconds_per_step_of([running("w", 1.0, None)]) == math.inf
    assert seconds_per_step_of([running("w", 1.0, rate) for rate in (None, 1.0, 4.0, 2.0)]) == 0.5


def test_a_busy_worker_is_one_slot_whether_it_was_heard_of_or_not() -> None:
    known = {"idle": ("cpu", 1), "busy": ("cpu", 4)}
    slots = slots_of(known, [running("busy", 9.0), running("unheard", 3.0)])
    assert slots == [Slot("cpu", 1), Slot("cpu", 4, True, 9.0), Slot("cpu", 1, True, 3.0)]


@pytest.mark.parametrize(("is_costly", "readings"), [(True, [1, 1, 1, 2]), (False, [1, 2, 3, 4])])
def test_a_costly_reading_serves_twenty_times_as_long_as_it_took(is_costly: bool, readings: list[int]) -> None:
    now, count = [0.0], itertools.count(1)

    def make() -> int:
        now[0] += 1.0
        return next(count)

    shared: Shared[int] = Shared(lambda: now[0])
    found = []
    for moment in (0.0, 2.0, 20.9, 21.1):
        now[0] = max(now[0], moment)
        found.append(shared.read(make, lambda _: is_costly))
    assert found == readings
