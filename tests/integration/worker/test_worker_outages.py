"""Database or store away while a trainer runs: what can wait waits, what cannot ends in time, nothing is lost."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from breakable import Breakable
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from worker_bench import Bench, SkippingClock, is_alive, wait_for

from jobs.db import make_engine, make_session_factory, transaction
from jobs.store import ObjectStore
from jobs.tables import LogLine, Sample
from worker import supervisor
from worker.heartbeat import Heartbeat
from worker.runner import Runner

BEHIND = "behind-a-link"  # What the database calls the connections that may be cut.


@pytest.fixture
def store_link(bench: Bench) -> Iterator[Breakable]:
    link = Breakable(bench.settings.s3_endpoint)
    yield link
    link.close()


@pytest.fixture
def database_link(bench: Bench) -> Iterator[Breakable]:
    link = Breakable(bench.settings.database_url)
    yield link
    link.close()


def runner_behind(
    bench: Bench, database: Breakable | None = None, store: Breakable | None = None, **changes: float
) -> Runner:
    settings = bench.settings.model_copy(
        update={
            **changes,
            "database_url": database.url if database else bench.settings.database_url,
            "s3_endpoint": store.url if store else bench.settings.s3_endpoint,
        }
    )
    engine = make_engine(settings, application=BEHIND)
    runner = Runner(settings, make_session_factory(engine), ObjectStore(settings))
    bench.runners.append(runner)
    bench.engines.append(engine)
    return runner


def at_work(bench: Bench) -> int:
    """Returns how many connections behind a link the database is doing something for."""
    with transaction(bench.sessions) as session:
        doing = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND state = 'active'"
        return session.scalars(text(doing), {"name": BEHIND}).one()


def test_while_the_store_is_down_metrics_flow_and_afterwards_no_file_is_missing(
    bench: Bench, store_link: Breakable
) -> None:
    """The trainer keeps only its last two checkpoints, and the store is away for longer than that."""
    bench.script(steps=24, step_seconds=0.02, checkpoint_every=4, samples=1)
    job_id = bench.submit()
    store_link.cut()
    thread = bench.in_background(runner_behind(bench, store=store_link))
    wait_for(lambda: 24 in bench.metrics(job_id))
    for _ in range(3):  # However long it takes: the lease is renewed all the while.
        expires_at = bench.job(job_id).lease_expires_at
        wait_for(lambda expires_at=expires_at: bench.job(job_id).lease_expires_at != expires_at)
    assert bench.job(job_id).status == "running"
    assert bench.checkpoints(job_id) == []
    store_link.mend()
    thread.join()
    job = bench.job(job_id)
    assert (job.status, job.attempt) == ("succeeded", 1)
    assert bench.committed(job_id) == list(range(4, 25, 4))
    assert len(bench.rows(Sample, job_id)) == 24
    assert bench.adapter(job_id) == b"x=300"


@pytest.mark.parametrize("read", ["datasets.filled_in", "secrets.values_for"])
def test_a_database_that_is_down_at_the_start_is_waited_for_and_counts_against_no_job(
    bench: Bench, database_link: Breakable, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """It goes away when the prompts, or the secrets, are about to be read, and is back a second later."""
    module, name = read.split(".")
    reads = getattr(getattr(supervisor, module), name)
    calls = 0

    def cut_at_first(session: Session, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            database_link.cut()
            threading.Timer(1, database_link.mend).start()
        session.execute(text("SELECT 1"))
        return reads(session, *arguments)

    monkeypatch.setattr(f"worker.supervisor.{read}", cut_at_first)
    job_id = bench.submit()
    runner_behind(bench, database=database_link, retry_seconds=1000).run_until_idle()
    assert calls >= 2
    job = bench.job(job_id)
    assert (job.status, job.attempt, job.attempts_without_progress) == ("succeeded", 1, 0)


def test_a_store_that_is_down_at_the_start_is_waited_for_rather_than_starting_over(
    bench: Bench, store_link: Breakable, caplog: pytest.LogCaptureFixture
) -> None:
    bench.script(attempts={"1": {"5": {"exit": 1}}})
    job_id = bench.submit()
    bench.run(retry_seconds=1000)
    bench.end_back_off(job_id)
    store_link.cut()
    runner = runner_behind(bench, store=store_link)
    runner.start()
    wait_for(lambda: caplog.text.count("event=start_waits") >= 2)
    assert (bench.job(job_id).attempt, len(bench.trainers())) == (2, 1)
    store_link.mend()
    wait_for(lambda: bench.job(job_id).status == "succeeded")
    runner.join()
    assert bench.attempts(job_id)[1].resumed_from_step == 4


def test_a_short_absence_of_the_database_costs_nothing(bench: Bench, database_link: Breakable) -> None:
    bench.script(steps=60, step_seconds=0.02, checkpoint_every=10, prints_steps=True)
    job_id = bench.submit()
    thread = bench.in_background(runner_behind(bench, database_link))
    wait_for(lambda: bench.metrics(job_id))
    database_link.cut()
    time.sleep(0.8)
    database_link.mend()
    thread.join()
    assert (bench.job(job_id).status, bench.job(job_id).attempt) == ("succeeded", 1)
    assert sorted(bench.metrics(job_id)) == list(range(1, 61))
    assert bench.committed(job_id) == [10, 20, 30, 40, 50, 60]
    lines = sorted(bench.rows(LogLine, job_id), key=lambda line: line.number)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert [line.message for line in lines if line.source == "output"] == [f"step {n}" for n in range(1, 61)]


@pytest.mark.parametrize("how", ["cut", "hang"])
def test_a_supervisor_that_cannot_renew_kills_its_trainer_before_the_lease_runs_out(
    bench: Bench, database_link: Breakable, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the last sixth of the lease is skipped; the rest, 20 s, is what a busy machine may take."""
    clock, lease_s = SkippingClock(), 120
    bench.script(steps=4000, step_seconds=0.02, checkpoint_every=10)
    job_id = bench.submit()
    with monkeypatch.context() as of_the_first:
        of_the_first.setattr("worker.supervisor.Heartbeat", partial(Heartbeat, clock=clock))
        thread = bench.in_background(runner_behind(bench, database_link, lease_seconds=lease_s))
        wait_for(lambda: bench.checkpoints(job_id))
    pid = bench.trainers()[0]["pid"]
    getattr(database_link, how)()
    skipped = timedelta(seconds=lease_s * 5 / 6)
    clock.skip(skipped.total_seconds())
    wait_for(lambda: not is_alive(pid))
    expires_at = bench.job(job_id).lease_expires_at
    assert expires_at is not None
    with transaction(bench.sessions) as session:
        assert session.scalars(select(func.clock_timestamp())).one() + skipped < expires_at
    wait_for(lambda: not at_work(bench))  # What had reached the server before is no fault.
    seq = len(bench.events(job_id))
    database_link.mend()
    thread.join()
    assert len(bench.events(job_id)) == seq, "nothing more is published"
    bench.end_lease(job_id)
    runner = bench.runner("other")
    runner.start()
    wait_for(lambda: len(bench.attempts(job_id)) == 2 and bench.attempts(job_id)[1].resumed_from_step)
    runner.join()


def test_a_worker_that_finds_no_database_keeps_looking(
    bench: Bench, database_link: Breakable, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = bench.submit()
    database_link.cut()
    runner = runner_behind(bench, database_link)
    runner.start()
    wait_for(lambda: caplog.text.count("event=claim_failed") >= 2)
    database_link.mend()
    wait_for(lambda: bench.job(job_id).status == "succeeded")
    runner.join()


def test_a_shutdown_while_the_store_is_down_does_not_wait_for_it(bench: Bench, store_link: Breakable) -> None:
    bench.script(steps=4000, step_seconds=0.02, checkpoint_every=10)
    job_id = bench.submit()
    store_link.cut()
    runner = runner_behind(bench, store=store_link, stop_grace_seconds=0.5)
    thread = bench.in_background(runner)
    wait_for(lambda: bench.job(job_id).progress["step"] >= 12)
    runner.drain()
    thread.join(timeout=60)
    assert not thread.is_alive()
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.status_reason["code"]) == ("queued", "preempted")
