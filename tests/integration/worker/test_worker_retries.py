"""What follows an attempt that did not succeed: another one, elsewhere, or none."""

from datetime import timedelta

import pytest
from sqlalchemy import func, update
from worker_bench import Bench

from jobs import leases, workers
from jobs.db import transaction
from jobs.ids import new_id
from jobs.leases import CPU, Claim
from jobs.queue import Pool
from jobs.queue_places import queue_places
from jobs.retries import Retry
from jobs.states import Status, StatusReason
from jobs.tables import Checkpoint, Job

LEASE = timedelta(seconds=60)
STALLED: StatusReason = {"code": "stalled", "message": "no step", "retryable": True, "actor": "system"}


def claim(bench: Bench, owner: str) -> Claim | None:
    with transaction(bench.sessions) as session:
        workers.beat(session, owner, CPU)
        return leases.claim(session, owner, LEASE)


def end(bench: Bench, claim: Claim | None, reason: StatusReason = STALLED) -> Status:
    """Ends an attempt, and the back-off after it."""
    assert claim is not None
    with transaction(bench.sessions) as session:
        job = leases.guard(session, claim.job_id, claim.epoch)
        status = leases.end_by_reason(session, job, reason, Retry(timedelta(0)))
        session.execute(update(Job).values(not_before=None))
    return status


def commit(bench: Bench, claim: Claim | None, step: int) -> None:
    assert claim is not None
    with transaction(bench.sessions) as session:
        row = {"job_id": claim.job_id, "epoch": claim.epoch, "step": step, "kind": "state", "files": []}
        id_ = new_id("ckpt")
        session.add(Checkpoint(**row, id=id_, object_prefix=id_, size_bytes=0, spec_digest=claim.spec_digest))


def reason_shown(bench: Bench, job_id: str) -> str:
    with transaction(bench.sessions) as session:
        return queue_places(session, [session.get_one(Job, job_id)])[job_id]["reason"]["code"]


def test_a_stalled_job_goes_to_another_worker(bench: Bench) -> None:
    job_id = bench.submit()
    first = claim(bench, "one")
    assert claim(bench, "two") is None
    assert end(bench, first) is Status.QUEUED
    assert reason_shown(bench, job_id) == "elsewhere"
    assert claim(bench, "one") is None
    other = bench.submit("other")
    taken = claim(bench, "one")
    assert taken is not None
    assert taken.job_id == other, "what it is kept from holds up nobody"
    second = claim(bench, "two")
    assert second is not None
    assert second.job_id == job_id


def test_a_stalled_job_is_not_kept_from_the_only_worker_nor_for_ever(bench: Bench) -> None:
    with transaction(bench.sessions) as session:
        workers.beat(session, "drained", CPU)
        workers.drain(session, "drained")
        workers.beat(session, "narrow", Pool("cpu", 0))
    bench.submit()
    assert end(bench, claim(bench, "one")) is Status.QUEUED
    again = claim(bench, "one")
    assert claim(bench, "two") is None
    end(bench, again)
    assert claim(bench, "one") is None
    with transaction(bench.sessions) as session:
        session.execute(update(Job).values(avoid_until=func.clock_timestamp() - timedelta(seconds=1)))
    assert claim(bench, "one") is not None


def test_a_checkpoint_where_an_earlier_attempt_had_been_is_no_progress(bench: Bench) -> None:
    """As when a job dies at the same step again and again, and its newest checkpoint cannot be used."""
    bench.submit()
    outcomes = []
    for step in (4, 4, 6, 4, 6, 2):
        given = claim(bench, "one")
        commit(bench, given, step)
        outcomes.append(end(bench, given))
    assert outcomes == [Status.QUEUED] * 5 + [Status.FAILED]


@pytest.mark.parametrize(("code", "expected"), [("preempted", Status.QUEUED), ("worker_lost", Status.FAILED)])
def test_what_was_nobodys_fault_is_not_counted(bench: Bench, code: str, expected: Status) -> None:
    bench.submit()
    outcomes = [end(bench, claim(bench, "one"), {**STALLED, "code": code}) for _ in range(3)]
    assert outcomes == [Status.QUEUED, Status.QUEUED, expected]
