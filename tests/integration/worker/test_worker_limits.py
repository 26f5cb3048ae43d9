"""Budgets and deadlines of jobs: they pause, with a checkpoint, and their owner decides."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, update
from worker_bench import Bench, wait_for

from jobs import jobs, leases, limits
from jobs.db import transaction
from jobs.errors import LimitReached
from jobs.retries import Retry
from jobs.spec import JobChanges, checked
from jobs.states import Status, StatusReason
from jobs.tables import Attempt, Job

LEASE = timedelta(seconds=60)
PREEMPTED: StatusReason = {"code": "preempted", "message": "shut down", "retryable": True, "actor": "system"}
SOON = {"deadline_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}  # Later than any run of the tests.


def enforce(bench: Bench) -> None:
    with transaction(bench.sessions) as session:
        limits.enforce(session, timedelta(seconds=60))


def pass_deadline(bench: Bench, job_id: str) -> None:
    with transaction(bench.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(pause_at=func.clock_timestamp()))


def began_ago(bench: Bench, job_id: str, minutes: float) -> None:
    with transaction(bench.sessions) as session:
        began = func.clock_timestamp() - timedelta(minutes=minutes)
        session.execute(update(Attempt).where(Attempt.job_id == job_id).values(started_at=began))


def change(bench: Bench, job_id: str, **changes: Any) -> None:
    with transaction(bench.sessions) as session:
        project_id = session.get_one(Job, job_id).project_id
        jobs.change(session, project_id, job_id, checked(JobChanges, changes), version=None)


def resume(bench: Bench, job_id: str) -> None:
    with transaction(bench.sessions) as session:
        jobs.resume(session, session.get_one(Job, job_id).project_id, job_id)


def shown(bench: Bench, job_id: str) -> tuple[str, str, str]:
    job = bench.job(job_id)
    assert job.status_reason is not None
    return job.status, job.status_reason["code"], job.status_reason["actor"]


def test_a_job_that_has_used_its_hours_is_paused_with_a_checkpoint_and_goes_on_when_they_are_raised(
    bench: Bench,
) -> None:
    bench.script(steps=100, checkpoint_every=1000, attempts={"1": {"3": {"waits": True}}})
    job_id = bench.submit(limits={"max_gpu_hours": 0.5})
    runner = bench.runner(reaper_seconds=0.1)
    runner.start()
    wait_for(lambda: bench.job(job_id).progress["step"] >= 3)
    assert bench.job(job_id).status == "running"
    began_ago(bench, job_id, 31)
    wait_for(lambda: bench.job(job_id).status == "paused")
    assert shown(bench, job_id) == ("paused", "budget_exhausted", "quota")
    last_step = bench.job(job_id).progress["step"]
    assert bench.committed(job_id) == [last_step]
    with pytest.raises(LimitReached, match=r"has used its 0\.5 GPU hours: raise limits\.max_gpu_hours"):
        resume(bench, job_id)
    change(bench, job_id, limits={"max_gpu_hours": 2})
    bench.script(steps=100, step_seconds=0)
    resume(bench, job_id)
    wait_for(lambda: bench.job(job_id).status == "succeeded")
    runner.join()
    assert bench.attempts(job_id)[1].resumed_from_step == last_step
    assert bench.events(job_id, "changed")[0].data["limits"]["max_gpu_hours"] == 2


def test_a_deadline_pauses_what_waits_and_what_runs(bench: Bench) -> None:
    running, waiting, free = bench.submit(limits=SOON), bench.submit(limits=SOON), bench.submit()
    with transaction(bench.sessions) as session:
        assert leases.claim(session, "w", LEASE) is not None
    enforce(bench)
    assert [bench.job(job_id).status for job_id in (running, waiting)] == ["running", "queued"]
    pass_deadline(bench, running)
    pass_deadline(bench, waiting)
    enforce(bench)
    assert shown(bench, running) == ("pausing", "deadline_passed", "quota")
    assert bench.job(running).desired_state == "pause"
    assert shown(bench, waiting) == ("paused", "deadline_passed", "quota")
    assert bench.job(free).status == "queued"


def test_a_worker_that_dies_over_the_pause_does_not_change_its_reason(bench: Bench) -> None:
    job_id = bench.submit(limits=SOON)
    with transaction(bench.sessions) as session:
        leases.claim(session, "w", LEASE)
    pass_deadline(bench, job_id)
    enforce(bench)
    with transaction(bench.sessions) as session:
        session.execute(update(Job).values(lease_expires_at=func.clock_timestamp()))
    with transaction(bench.sessions) as session:
        leases.reap(session, Retry(timedelta(seconds=1)))
    assert shown(bench, job_id) == ("paused", "deadline_passed", "quota")


def test_an_attempt_that_ends_over_the_budget_is_followed_by_none(bench: Bench) -> None:
    job_id = bench.submit(limits={"max_gpu_hours": 0.5})
    with transaction(bench.sessions) as session:
        claim = leases.claim(session, "w", LEASE)
    assert claim is not None
    began_ago(bench, job_id, 31)
    with transaction(bench.sessions) as session:
        job = leases.guard(session, job_id, claim.epoch)
        assert leases.end_by_reason(session, job, PREEMPTED, Retry(timedelta(0))) is Status.PAUSED
    assert shown(bench, job_id) == ("paused", "budget_exhausted", "quota")
