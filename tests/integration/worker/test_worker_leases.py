"""Leases in the database: who gets a job, who may write, and what becomes of what was lost."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import func, update
from worker_bench import Bench

from jobs import events, jobs, leases
from jobs.db import transaction
from jobs.errors import LeaseLost
from jobs.leases import Claim
from jobs.retries import Retry
from jobs.states import Status
from jobs.tables import Job
from worker.fence import Fence
from worker.heartbeat import Heartbeat
from worker.protocol import MetricEvent
from worker.rows import RowWriter

LEASE = timedelta(seconds=60)
RETRY = Retry(first=timedelta(seconds=10))


def claim(bench: Bench, owner: str = "w") -> Claim | None:
    with transaction(bench.sessions) as session:
        return leases.claim(session, owner, LEASE)


def claimed(bench: Bench) -> Claim:
    given = claim(bench)
    assert given is not None
    return given


def heartbeat() -> Heartbeat:
    return Heartbeat(lambda: "run", lease_s=60, interval_s=15, claimed_at=time.monotonic())


def change(bench: Bench, job_id: str, **values: object) -> None:
    with transaction(bench.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def expire(bench: Bench, job_id: str) -> None:
    change(bench, job_id, lease_expires_at=func.clock_timestamp() - timedelta(seconds=1))


def make_eligible(bench: Bench, job_id: str) -> None:
    change(bench, job_id, not_before=None)


def reap(bench: Bench) -> list[tuple[str, Status]]:
    with transaction(bench.sessions) as session:
        return list(leases.reap(session, RETRY))


def test_the_oldest_job_is_claimed_once(bench: Bench) -> None:
    first, second = bench.submit(), bench.submit()
    one, two = claimed(bench), claimed(bench)
    assert [one.job_id, two.job_id] == [first, second]
    assert (one.epoch, one.attempt, one.spec["name"]) == (1, 1, "run")
    assert claim(bench) is None


def test_a_claim_does_not_wait_for_another_claim(bench: Bench) -> None:
    bench.submit()
    second = bench.submit()
    with transaction(bench.sessions) as slow:
        leases.claim(slow, "slow", LEASE)
        assert claimed(bench).job_id == second
        assert claim(bench) is None


def test_the_project_that_runs_less_comes_first(bench: Bench) -> None:
    busy = [bench.submit("busy") for _ in range(2)]
    idle = bench.submit("idle")
    assert [claimed(bench).job_id for _ in range(3)] == [busy[0], idle, busy[1]]


def test_a_job_in_back_off_is_not_claimed(bench: Bench) -> None:
    job_id = bench.submit()
    change(bench, job_id, not_before=func.clock_timestamp() + timedelta(seconds=60))
    assert claim(bench) is None
    change(bench, job_id, not_before=func.clock_timestamp() - timedelta(seconds=1))
    assert claimed(bench).job_id == job_id


def test_renewal_prolongs_and_brings_the_wish_of_the_owner(bench: Bench) -> None:
    bench.submit()
    given = claimed(bench)
    before = bench.job(given.job_id)
    with transaction(bench.sessions) as session:
        assert leases.renew(session, given.job_id, given.epoch, LEASE * 2) == "run"
    after = bench.job(given.job_id)
    assert before.lease_expires_at is not None
    assert after.lease_expires_at is not None
    assert after.lease_expires_at > before.lease_expires_at + LEASE / 2
    assert (before.first_heartbeat_at, after.first_heartbeat_at is None) == (None, False)
    with transaction(bench.sessions) as session:
        jobs.cancel(session, given.project_id, given.job_id, deadline=LEASE)
    with transaction(bench.sessions) as session:
        assert leases.renew(session, given.job_id, given.epoch, LEASE) == "cancel"


def test_a_lease_that_ran_out_is_neither_renewed_nor_written_under(bench: Bench) -> None:
    bench.submit()
    given = claimed(bench)
    expire(bench, given.job_id)
    with pytest.raises(LeaseLost), transaction(bench.sessions) as session:
        leases.renew(session, given.job_id, given.epoch, LEASE)
    with pytest.raises(LeaseLost), transaction(bench.sessions) as session:
        leases.guard(session, given.job_id, given.epoch)


def test_a_worker_of_an_older_epoch_writes_nothing(bench: Bench) -> None:
    job_id = bench.submit()
    stale = claimed(bench)
    expire(bench, job_id)
    assert reap(bench) == [(job_id, Status.QUEUED)]
    make_eligible(bench, job_id)
    fresh = claimed(bench)
    assert (fresh.epoch, fresh.attempt) == (2, 2)
    writers = [RowWriter(bench.sessions, Fence(given, heartbeat())) for given in (stale, fresh)]
    event = MetricEvent(type="metric", step=1, values={"loss": 1.0})
    writers[1].publish([event])
    with pytest.raises(LeaseLost):
        writers[0].publish([event.model_copy(update={"values": {"loss": 666.0}})])
    assert bench.metrics(job_id) == {1: 1.0}


def test_a_lease_that_is_over_by_the_workers_clock_writes_nothing_though_the_database_would_take_it(
    bench: Bench,
) -> None:
    """So ends a transaction that hung until the trainer had to be killed."""
    bench.submit()
    given = claimed(bench)
    late = Heartbeat(lambda: "run", lease_s=60, interval_s=15, claimed_at=time.monotonic() - 55)
    event = MetricEvent(type="metric", step=1, values={"loss": 1.0})
    with pytest.raises(LeaseLost):
        RowWriter(bench.sessions, Fence(given, late)).publish([event])
    assert bench.metrics(given.job_id) == {}


def test_an_expired_lease_is_recovered_with_back_off_and_fails_at_the_third(bench: Bench) -> None:
    job_id = bench.submit()
    for number, pause in ((1, 10), (2, 20)):
        claimed(bench)
        expire(bench, job_id)
        assert reap(bench) == [(job_id, Status.QUEUED)]
        job = bench.job(job_id)
        assert (job.phase, job.attempts_without_progress, job.lease_owner) == ("recovering", number, None)
        with transaction(bench.sessions) as session:
            left = (job.not_before - session.scalar(func.clock_timestamp())).total_seconds()  # type: ignore[operator]
        assert pause - 2 < left <= pause
        make_eligible(bench, job_id)
    claimed(bench)
    expire(bench, job_id)
    assert reap(bench) == [(job_id, Status.FAILED)]
    reason = bench.job(job_id).status_reason
    assert reason is not None
    assert (reason["code"], reason["retryable"]) == ("worker_lost", True)
    assert "never sent a heartbeat" in reason["message"]
    reasons = [attempt.reason for attempt in bench.attempts(job_id)]
    assert [reason and reason["code"] for reason in reasons] == ["worker_lost"] * 3
    assert all(attempt.finished_at for attempt in bench.attempts(job_id))


def test_a_lease_that_is_renewed_is_left_alone(bench: Bench) -> None:
    bench.submit()
    claimed(bench)
    assert reap(bench) == []


def test_one_reaper_works_at_a_time(bench: Bench) -> None:
    job_id = bench.submit()
    claimed(bench)
    with transaction(bench.sessions) as first:
        assert leases.reap(first, RETRY) == []
        expire(bench, job_id)
        assert reap(bench) == []
    assert reap(bench) == [(job_id, Status.QUEUED)]


def test_cancelling_is_forced_at_its_deadline_though_the_worker_still_renews(bench: Bench) -> None:
    bench.submit()
    given = claimed(bench)
    with transaction(bench.sessions) as session:
        jobs.cancel(session, given.project_id, given.job_id, deadline=LEASE)
    assert reap(bench) == []
    change(bench, given.job_id, deadline_at=func.clock_timestamp() - timedelta(seconds=1))
    assert reap(bench) == [(given.job_id, Status.CANCELLED)]
    with pytest.raises(LeaseLost), transaction(bench.sessions) as session:
        leases.renew(session, given.job_id, given.epoch, LEASE)


@pytest.mark.parametrize(("asked", "became"), [("cancelling", Status.CANCELLED), ("pausing", Status.PAUSED)])
def test_a_lost_worker_leaves_a_job_as_its_owner_wanted_it(bench: Bench, asked: str, became: Status) -> None:
    bench.submit()
    given = claimed(bench)
    change(bench, given.job_id, status=asked, desired_state="cancel" if asked == "cancelling" else "pause")
    expire(bench, given.job_id)
    assert reap(bench) == [(given.job_id, became)]
    assert bench.job(given.job_id).desired_state == "run"


def test_the_back_off_doubles_up_to_five_minutes() -> None:
    seconds = [RETRY.after(count).total_seconds() for count in (0, 1, 2, 3, 4, 5, 6, 7, 1000)]
    assert seconds == [10, 10, 20, 40, 80, 160, 300, 300, 300]


def test_events_of_many_writers_have_no_gap(bench: Bench) -> None:
    job_id = bench.submit()
    claimed(bench)
    for _ in range(3):
        with bench.sessions() as session:
            events.append(session, job_id, "log", {"message": "rolled back"})
            session.rollback()
        with transaction(bench.sessions) as session:
            events.append(session, job_id, "log", {"message": "kept"})
    assert [event.data["message"] for event in bench.events(job_id, "log")] == ["kept"] * 3
