"""Being told to stop: cancel, drain, stall, and a lease that is gone."""

import os
import signal
import threading
from functools import partial

import pytest
from worker_bench import Bench, SkippingClock, is_alive, wait_for

from jobs import jobs
from jobs.db import transaction
from jobs.tables import Job
from worker.heartbeat import Heartbeat
from worker.runner import Runner
from worker.stall import StallDetector

LONG = {"steps": 4000, "step_seconds": 0.02, "checkpoint_every": 10}


def cancel(bench: Bench, job_id: str) -> None:
    with transaction(bench.sessions) as session:
        job = session.get(Job, job_id)
        assert job is not None
        jobs.cancel(session, job.project_id, job_id, deadline=bench.settings.lease * 10)


def pause(bench: Bench, job_id: str, *, deadline_leases: int = 10) -> None:
    with transaction(bench.sessions) as session:
        project_id = session.get_one(Job, job_id).project_id
        jobs.pause(session, project_id, job_id, deadline=bench.settings.lease * deadline_leases)


def resume(bench: Bench, job_id: str) -> None:
    with transaction(bench.sessions) as session:
        jobs.resume(session, session.get_one(Job, job_id).project_id, job_id)


def start_and_reach(bench: Bench, job_id: str, step: int, **changes: float) -> tuple[Runner, threading.Thread]:
    runner = bench.runner(**changes)
    thread = bench.in_background(runner)
    wait_for(lambda: bench.job(job_id).progress["step"] >= step)
    return runner, thread


def test_cancel_stops_the_trainer_and_keeps_a_checkpoint_of_the_last_step(bench: Bench) -> None:
    bench.script(**LONG)
    job_id = bench.submit()
    _, thread = start_and_reach(bench, job_id, 3)
    cancel(bench, job_id)
    thread.join()
    job = bench.job(job_id)
    assert (job.status, job.phase, job.desired_state) == ("cancelled", "done", "run")
    assert job.status_reason is not None
    assert job.status_reason["code"] == "cancelled_by_user"
    (attempt,) = bench.attempts(job_id)
    assert (attempt.outcome, attempt.exit_code) == ("cancelled", 75), "it ended by itself, and in time"
    assert bench.checkpoints(job_id)[-1].step == attempt.last_step
    assert bench.statuses(job_id) == ["queued", "running", "cancelling", "cancelled"]


def test_a_trainer_that_ignores_the_request_is_killed_after_the_grace_period(bench: Bench) -> None:
    bench.script(**LONG, obeys_sigterm=False)
    job_id = bench.submit()
    _, thread = start_and_reach(bench, job_id, 3, stop_grace_seconds=0.5)
    cancel(bench, job_id)
    thread.join()
    assert bench.job(job_id).status == "cancelled"
    assert bench.attempts(job_id)[0].exit_code == -9


def test_a_draining_worker_commits_a_checkpoint_and_the_next_one_goes_on_from_it(bench: Bench) -> None:
    bench.script(steps=40, checkpoint_every=1000, attempts={"1": {"8": {"waits": True}}})
    job_id = bench.submit()
    runner, thread = start_and_reach(bench, job_id, 5)
    runner.drain()
    thread.join()
    job = bench.job(job_id)
    assert (job.status, job.phase, job.not_before) == ("queued", "waiting_capacity", None)
    assert job.status_reason is not None
    assert (job.status_reason["code"], job.attempts_without_progress) == ("preempted", 0)
    bench.run()
    first, second = bench.attempts(job_id)
    assert (first.outcome, first.exit_code) == ("queued", 75)
    assert second.resumed_from_step == first.last_step == bench.checkpoints(job_id)[0].step
    assert bench.adapter(job_id) == b"x=820"
    steps = bench.metrics(job_id, "epoch_of_x")
    assert sorted(steps) == list(range(1, 41))
    assert set(steps.values()) == {1.0, 2.0}


def test_a_draining_worker_claims_nothing_more(bench: Bench) -> None:
    bench.script(**LONG)
    first, second = bench.submit(), bench.submit()
    runner, thread = start_and_reach(bench, first, 2)
    runner.drain()
    thread.join()
    assert (bench.job(first).status, bench.job(second).attempt) == ("queued", 0)


def test_a_stuck_trainer_is_stopped_with_its_stacks_in_the_log_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SkippingClock()
    monkeypatch.setattr("worker.supervisor.StallDetector", partial(StallDetector, clock=clock))
    bench.script(attempts={"1": {"3": {"hang": True}}})
    job_id = bench.submit()
    runner = bench.runner(stall_seconds=600)
    thread = bench.in_background(runner)
    wait_for(lambda: 3 in bench.metrics(job_id))  # Its last word.
    clock.skip(601)
    thread.join()
    while bench.job(job_id).status != "succeeded":
        runner.run_until_idle()
    first, second = bench.attempts(job_id)
    assert first.reason is not None
    assert (first.reason["code"], first.exit_code, second.resumed_from_step) == ("stalled", -6, 2)
    assert any("in act" in event.data["message"] for event in bench.events(job_id, "log"))


def test_a_worker_whose_lease_is_gone_kills_its_trainer_and_publishes_nothing_more(bench: Bench) -> None:
    bench.script(**LONG)
    job_id = bench.submit()
    _, thread = start_and_reach(bench, job_id, 3)
    (trainer,) = bench.trainers()
    bench.end_lease(job_id)
    seq = len(bench.events(job_id))
    thread.join()
    assert not is_alive(trainer["pid"])
    assert len(bench.events(job_id)) == seq
    assert bench.job(job_id).status == "running", "the reaper has not come by"


def test_the_reaper_of_another_worker_recovers_and_finishes_the_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker stands still with its trainer, and finds out by its own clock when it goes on."""
    bench.script(steps=30, attempts={"1": {"7": {"hang": True}}})
    job_id = bench.submit()
    clock = SkippingClock()
    with monkeypatch.context() as of_the_lost:
        of_the_lost.setattr("worker.supervisor.Heartbeat", partial(Heartbeat, clock=clock))
        thread = bench.in_background(bench.runner("lost", heartbeat_seconds=1000))
        wait_for(lambda: bench.committed(job_id) == [2, 4, 6] and 7 in bench.metrics(job_id))
    os.kill(bench.trainers()[0]["pid"], signal.SIGSTOP)
    bench.end_lease(job_id)
    other = bench.runner("other")
    other.start()
    wait_for(lambda: bench.job(job_id).status == "succeeded")
    other.join()
    clock.skip(bench.settings.lease_seconds)
    thread.join()
    first, second = bench.attempts(job_id)
    assert first.reason is not None
    assert (first.reason["code"], first.worker, second.worker) == ("worker_lost", "lost", "other")
    assert second.resumed_from_step == 6
    assert bench.adapter(job_id) == b"x=465"
    assert not is_alive(bench.trainers()[0]["pid"])


def test_a_pause_frees_the_worker_and_another_worker_ends_the_job_as_if_it_had_not_been(bench: Bench) -> None:
    bench.script(steps=60, checkpoint_every=10, attempts={"2": {"25": {"waits": True}}})
    unbroken = bench.submit()
    bench.run()
    paused = bench.submit()
    _, thread = start_and_reach(bench, paused, 3)
    pause(bench, paused)
    thread.join()
    job = bench.job(paused)
    assert (job.status, job.lease_owner, job.desired_state, job.deadline_at) == ("paused", None, "run", None)
    assert job.status_reason is not None
    assert job.status_reason["code"] == "paused_by_user"
    assert bench.committed(paused)[-1] == job.progress["step"]
    other = bench.submit()
    bench.run()
    assert (bench.job(other).status, bench.job(paused).status) == ("succeeded", "paused")
    resume(bench, paused)
    bench.run(name="another")
    assert bench.statuses(paused) == ["queued", "running", "pausing", "paused", "queued", "running", "succeeded"]
    assert bench.attempts(paused)[1].resumed_from_step == job.progress["step"]
    assert bench.adapter(paused) == bench.adapter(unbroken)


def test_a_pause_that_its_worker_does_not_live_to_bring_about_is_forced(bench: Bench) -> None:
    bench.script(**LONG, obeys_sigterm=False)
    job_id = bench.submit()
    _, thread = start_and_reach(bench, job_id, 3, stop_grace_seconds=60)
    pause(bench, job_id, deadline_leases=0)
    reaper = bench.runner(name="reaper")

    def reaped() -> bool:  # A row that the worker has just locked is left for the next round.
        reaper._reap_once()
        return bench.job(job_id).status == "paused"

    wait_for(reaped)
    thread.join(timeout=60)
    assert not thread.is_alive(), "a lease that is gone ends the trainer"
    assert bench.job(job_id).status == "paused"
