"""What a queued job is told of its place, and what an operator asks of workers."""

import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, text, update
from worker_bench import Bench, wait_for

from jobs import leases, workers
from jobs.db import SHARED_PICTURE, transaction
from jobs.leases import CPU, Claim
from jobs.queue import Pool
from jobs.queue_order import Turn, Waiting, turns
from jobs.queue_places import Picture, QueuePlace, obstacles, queue_places
from jobs.shared import Shared
from jobs.states import Status
from jobs.tables import Job, Project, Worker
from worker.operate import main, table

LEASE = timedelta(seconds=60)


def place(bench: Bench, job_id: str) -> QueuePlace:
    with transaction(bench.sessions) as session:
        return queue_places(session, [session.get_one(Job, job_id)])[job_id]


def told(bench: Bench, job_id: str) -> tuple[int, str, float | None]:
    found = place(bench, job_id)
    return found["position"], found["reason"]["code"], found["eta_seconds"]


def claim(bench: Bench, owner: str = "w", pool: Pool = CPU) -> Claim:
    with transaction(bench.sessions) as session:
        workers.beat(session, owner, pool)
        given = leases.claim(session, owner, LEASE, pool)
    assert given is not None
    return given


def beat(bench: Bench, owner: str, pool: Pool = CPU) -> None:
    with transaction(bench.sessions) as session:
        workers.beat(session, owner, pool)


def change(bench: Bench, job_id: str, **values: object) -> None:
    with transaction(bench.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def limit(bench: Bench, project: str, **limits: float) -> None:
    with transaction(bench.sessions) as session:
        session.execute(update(Project).where(Project.name == project).values(**limits))


def listed(bench: Bench) -> str:
    with transaction(bench.sessions) as session:
        return table(workers.seen_lately(session))


def test_the_turn_comes_when_those_before_it_have_had_theirs(bench: Bench) -> None:
    """The running job has 2000 s to go at 0.2 steps/s; a new one takes 1500 s for its 300 steps."""
    running, *queued = [bench.submit() for _ in range(3)]
    other = bench.submit("other", priority="low")
    claim(bench)
    progress = {"step": 260, "total_steps": 300, "steps_per_second": 0.2, "eta_seconds": 2000.0}
    change(bench, running, progress=progress, updated_at=func.clock_timestamp())
    seen = [told(bench, job_id) for job_id in (*queued, other)]
    assert [(position, code) for position, code, _ in seen] == [
        (1, "workers_busy"),
        (2, "behind_other_jobs"),
        (3, "behind_other_jobs"),
    ]
    assert [eta for *_, eta in seen] == pytest.approx([2000, 3500, 5000], abs=60)


def test_a_job_that_no_worker_can_take_says_what_there_is(bench: Bench) -> None:
    beat(bench, "w", Pool("h100", 2))
    a100, wide, fits = [
        bench.submit(resources=resources)
        for resources in ({"gpu_type": "a100"}, {"gpu_type": "h100", "gpus": 4}, {"gpu_type": "h100"})
    ]
    assert told(bench, a100) == (1, "no_matching_worker", None)
    message = place(bench, wide)["reason"]["message"]
    assert message == "no worker has 4 GPUs of type h100; there are: 2 x h100"
    assert told(bench, fits) == (1, "starting", 0.0), "what no worker can take is before nobody"
    assert told(bench, bench.submit()) == (2, "behind_other_jobs", None)


def test_a_project_at_its_limit_is_told_so_and_is_before_nobody(bench: Bench) -> None:
    running, first, second = [bench.submit("limited") for _ in range(3)]
    free = bench.submit("free")
    claim(bench)
    beat(bench, "idle")
    limit(bench, "limited", max_concurrent_jobs=1)
    change(bench, running, progress={"step": 1, "total_steps": 3, "steps_per_second": 0.1, "eta_seconds": 2000.0})
    assert told(bench, first)[:2] == (1, "project_limit")
    assert told(bench, second)[:2] == (2, "project_limit")
    assert place(bench, first)["eta_seconds"] == pytest.approx(2000, abs=60)
    assert "the project runs 1 jobs, and may run 1 at once" in place(bench, second)["reason"]["message"]
    assert told(bench, free) == (1, "starting", 0.0)
    limit(bench, "limited", max_concurrent_jobs=5, max_gpu_hours=1e-9)
    assert told(bench, first) == (1, "quota_used_up", None)


def test_a_job_in_back_off_says_when_it_is_tried_again(bench: Bench) -> None:
    job_id = bench.submit()
    beat(bench, "w")
    change(bench, job_id, not_before=func.clock_timestamp() + timedelta(seconds=4000))
    found = place(bench, job_id)
    assert found["reason"]["code"] == "back_off"
    assert found["eta_seconds"] == pytest.approx(4000, abs=60)


def submit_more(bench: Bench, number: int) -> None:
    """Queues jobs like the first one, before it."""
    fill = """
        INSERT INTO jobs (id, project_id, name, spec, spec_digest, base_model, progress)
        SELECT 'job_0' || lpad(n::text, 8, '0'), project_id, name, '{}', spec_digest, base_model, progress
        FROM jobs, generate_series(1, :number) n
    """
    with transaction(bench.sessions) as session:
        session.execute(text(fill), {"number": number})


def test_a_long_queue_is_played_through_once_and_before_anybody_asks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight ask for the place of the same job at the same moment, and then another picture is taken.

    The picture's clock goes on by one with each look at it: it serves some forty readings, however slow they are.
    """
    played: list[int] = []
    shared: Shared[Picture] = Shared(clock=itertools.count().__next__)
    bench.sessions.kw["info"][SHARED_PICTURE] = shared

    def play(waiting: Sequence[Waiting], *others: Any) -> dict[str, Turn]:
        played.append(len(waiting))
        time.sleep(0.2)  # The others ask meanwhile.
        return turns(waiting, *others)

    monkeypatch.setattr("jobs.queue_places.turns", play)
    job_id = bench.submit()
    submit_more(bench, 300)
    with transaction(bench.sessions) as session:
        obstacles(session, "none", 1, None)  # Only a picture that is there is shared.
    with ThreadPoolExecutor(8) as pool:
        assert {position for position, *_ in pool.map(told, [bench] * 8, [job_id] * 8)} == {301}
    assert played == [301]
    assert shared.last is not None
    shared._last = (shared.last, 0.0)
    with transaction(bench.sessions) as session:
        obstacles(session, "none", 1, None)
    assert played == [301, 301], "the new picture was prepared for what the last was asked"
    assert told(bench, job_id)[0] == 301
    assert played == [301, 301]


def cpu_s_of_looking(bench: Bench, job_id: str) -> float:
    """Returns what a read costs that has no picture of the queue to go by."""
    bench.sessions.kw["info"][SHARED_PICTURE] = Shared()
    begun = time.process_time()
    told(bench, job_id)
    return time.process_time() - begun


def test_a_thousand_reads_of_a_job_in_a_long_queue_cost_little(bench: Bench) -> None:
    """Ten thousand queued jobs: the picture of the queue is shared, and its age is bounded by what it cost."""
    job_id = bench.submit()
    submit_more(bench, 10_000)
    beat(bench, "w")
    alone = min(cpu_s_of_looking(bench, job_id) for _ in range(3))
    begun = time.process_time()
    positions = {told(bench, job_id)[0] for _ in range(1000)}
    assert positions == {10_001}
    assert time.process_time() - begun < 1000 * alone / 3, "as much as if each read looked at the queue"


def test_a_drained_worker_ends_its_job_and_takes_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EGRPO_DATABASE_URL", bench.settings.database_url)
    bench.script(attempts={"1": {"2": {"waits": True}}})
    first, second = bench.submit(), bench.submit()
    runner = bench.runner("one")
    runner.start()
    wait_for(lambda: bench.job(first).progress["step"] >= 2 and "one " in listed(bench))
    assert main(["drain", "one"]) == 0
    assert f"one     1 x cpu  draining  {first}" in capsys.readouterr().out
    bench.go_on()
    wait_for(lambda: bench.job(first).status == "succeeded")
    assert told(bench, second) == (1, "workers_draining", None)
    assert "one     1 x cpu  drained  -" in listed(bench)
    assert bench.job(second).attempt == 0
    bench.script(steps=4)
    assert main(["undrain", "one"]) == 0
    wait_for(lambda: bench.job(second).status == "succeeded")
    runner.join()
    assert "one" not in listed(bench), "a worker that ends in order leaves nothing behind"
    command = [sys.executable, "-m", "worker", "drain", "two"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, "error: there is no worker 'two'; there are: none\n")


def test_a_worker_without_room_is_not_said_to_be_about_to_take_a_job(bench: Bench) -> None:
    job_id = bench.submit()
    runner = bench.runner("full", min_free_bytes=2**62, reaper_seconds=0.05, poll_seconds=0.05)
    runner.start()
    wait_for(lambda: "full    1 x cpu  refusing  -" in listed(bench))
    assert told(bench, job_id) == (1, "workers_refusing", None)
    message = place(bench, job_id)["reason"]["message"]
    assert message.startswith("no worker with 1 GPUs of one type takes jobs now; full: ")
    assert message.endswith("GB are free on its disk, and it must have 4611686018.4")
    with transaction(bench.sessions) as session:
        job = session.get_one(Job, job_id)
        job.lease_owner = "another"
        assert not workers.is_another(session, job), "nor is a job kept for it from the worker that failed it"
        session.rollback()
    beat(bench, "other")
    assert told(bench, job_id) == (1, "starting", 0.0)
    with transaction(bench.sessions) as session:
        workers.leave(session, "other")
        workers.drain(session, "full")
    assert told(bench, job_id)[1] == "workers_draining"
    runner.join()


def test_a_worker_that_has_room_again_takes_jobs_and_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.runner.free_bytes", lambda work_dir: 0)
    job_id = bench.submit()
    runner = bench.runner("one", min_free_bytes=1, reaper_seconds=0.05, poll_seconds=0.05)
    runner.start()
    wait_for(lambda: "refusing" in listed(bench))
    monkeypatch.setattr("worker.runner.free_bytes", lambda work_dir: 1)
    wait_for(lambda: bench.job(job_id).status == "succeeded")
    wait_for(lambda: "taking jobs" in listed(bench))
    runner.join()


def test_a_worker_that_runs_a_job_takes_the_next_whatever_it_said_before(bench: Bench) -> None:
    running, queued = bench.submit(), bench.submit()
    claim(bench, "w")
    with transaction(bench.sessions) as session:
        workers.beat(session, "w", CPU, "its disk was full")
    assert told(bench, queued)[:2] == (1, "workers_busy")
    assert bench.job(running).status == "running"


def test_a_worker_that_starts_again_is_drained_no_more_and_the_dead_are_removed(bench: Bench) -> None:
    with transaction(bench.sessions) as session:
        for name in ("again", "dead"):
            workers.register(session, name, CPU)
        workers.drain(session, "again")
        session.execute(
            update(Worker).where(Worker.owner == "dead").values(last_seen_at=func.now() - timedelta(days=2))
        )
    with transaction(bench.sessions) as session:
        assert workers.is_draining(session, "again")
        workers.beat(session, "again", CPU)
        assert workers.is_draining(session, "again"), "a heartbeat is no start"
        workers.register(session, "again", CPU)
        assert not workers.is_draining(session, "again")
        assert (workers.remove_dead(session), workers.remove_dead(session)) == (1, 0)


def test_a_running_job_has_no_place(bench: Bench) -> None:
    job_id = bench.submit()
    claim(bench)
    with transaction(bench.sessions) as session:
        job = session.get_one(Job, job_id)
        assert (job.status, queue_places(session, [job])) == (Status.RUNNING, {})
