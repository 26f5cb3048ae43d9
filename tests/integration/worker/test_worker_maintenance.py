"""The maintenance process: turns between several of them, faults of a task, and an orderly end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from sqlalchemy import func, text, update
from worker_bench import Bench, wait_for

from jobs import leases, periodic
from jobs.db import transaction
from jobs.errors import StoreUnavailable
from jobs.tables import Job, PeriodicTask
from worker.maintenance import Context, Maintenance, Periodic

EVERY_S = 0.3


def task(run: Callable[[Context], None], name: str = "task") -> Periodic:
    return Periodic(name, lambda settings: EVERY_S, run)


@contextmanager
def maintained(bench: Bench, *processes: Periodic, lease_s: float = 60) -> Iterator[None]:
    """Runs one maintenance process, in a thread, for each of the given tasks."""
    settings = bench.settings.model_copy(update={"maintenance_lease_seconds": lease_s, "maintenance_grace_seconds": 1})
    stopping = threading.Event()
    context = Context(settings, bench.sessions, bench.store, stopping)
    threads = [threading.Thread(target=Maintenance(context, [process]).run) for process in processes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def row(bench: Bench, name: str = "task") -> PeriodicTask | None:
    with transaction(bench.sessions) as session:
        return session.get(PeriodicTask, name)


def test_two_processes_take_turns_and_a_task_is_run_once_a_period(bench: Bench) -> None:
    starts: list[datetime] = []
    running = threading.Semaphore(1)
    overlaps: list[datetime] = []

    def run(context: Context) -> None:
        turn = row(bench)
        assert turn is not None
        if not running.acquire(blocking=False):
            overlaps.append(turn.started_at)
            return
        starts.append(turn.started_at)  # By the database's clock: a run may begin long after its turn was given.
        time.sleep(0.05)
        running.release()

    with maintained(bench, task(run), task(run)):
        wait_for(lambda: len(starts) >= 6)
    gaps = [after - before for before, after in pairwise(starts)]
    assert not overlaps
    assert min(gaps) >= timedelta(seconds=EVERY_S)


def test_a_task_that_takes_longer_than_its_lease_keeps_its_turn(bench: Bench) -> None:
    """A renewal is waited for, not the end of a lease: one that ends soon would end while the machine is busy."""
    ran: list[str] = []

    def expires_at() -> datetime:
        turn = row(bench)
        assert turn is not None
        return turn.lease_expires_at

    def slow(context: Context) -> None:
        ran.append("began")
        first = expires_at()
        wait_for(lambda: expires_at() > first)
        ran.append("ended")

    with maintained(bench, task(slow), task(slow), lease_s=15):
        wait_for(lambda: "ended" in ran)
    assert ran[:2] == ["began", "ended"]


def test_a_task_that_fails_says_so_is_run_again_and_stops_no_other(bench: Bench) -> None:
    ran: list[str] = []

    def broken(context: Context) -> None:
        ran.append("broken")
        raise StoreUnavailable("down") if len(ran) == 1 else RuntimeError("a bug")

    def fine(context: Context) -> None:
        ran.append("fine")

    with maintained(bench, task(broken), task(fine, "other")):
        wait_for(lambda: ran.count("broken") >= 3 and ran.count("fine") >= 3)
        wait_for(lambda: (found := row(bench)) is not None and found.error == "RuntimeError")
    other = row(bench, "other")
    assert other is not None
    assert other.error is None
    assert other.finished_at is not None


def test_a_task_whose_end_could_not_be_noted_is_run_again_by_its_own_process(bench: Bench) -> None:
    ran: list[str] = []

    def run(context: Context) -> None:
        ran.append("ran")
        if len(ran) == 1:  # What the database does that goes down now: the end of this run is not noted.
            with transaction(bench.sessions) as session:
                session.execute(
                    text("CREATE FUNCTION no() RETURNS trigger AS $$BEGIN RETURN NULL; END$$ LANGUAGE plpgsql")
                )
                session.execute(
                    text(
                        "CREATE TRIGGER no BEFORE UPDATE ON periodic_tasks FOR EACH ROW"
                        " WHEN (NEW.owner IS NULL) EXECUTE FUNCTION no()"
                    )
                )

    with maintained(bench, task(run)):
        wait_for(lambda: len(ran) >= 3)


def test_the_task_of_a_process_that_died_is_taken_over_before_its_period_is_over(bench: Bench) -> None:
    day, lease = timedelta(days=1), timedelta(seconds=60)
    with transaction(bench.sessions) as session:
        assert periodic.take(session, "task", "dead", day, lease) == 0
        assert 0 < periodic.take(session, "task", "heir", day, lease) <= 60
        assert periodic.take(session, "another", "dead", day, lease) == 0
        periodic.finish(session, "another", "dead", None)
        session.execute(update(PeriodicTask).values(lease_expires_at=func.clock_timestamp()))
    with transaction(bench.sessions) as session:
        assert periodic.take(session, "task", "heir", day, lease) == 0
        periodic.finish(session, "task", "dead", None)  # It comes back: it is not its task any more.
        assert 86_000 < periodic.take(session, "another", "heir", day, lease) <= 86_400
    found = row(bench)
    assert found is not None
    assert found.owner == "heir"


def test_what_a_stopped_process_did_not_finish_is_anothers_turn_at_once(bench: Bench) -> None:
    began, let_go = threading.Event(), threading.Event()

    def stuck(context: Context) -> None:
        began.set()
        let_go.wait()

    try:
        with maintained(bench, task(stuck)):
            assert began.wait(60)
        with transaction(bench.sessions) as session:
            assert periodic.take(session, "task", "heir", timedelta(days=1), timedelta(seconds=60)) == 0
    finally:
        let_go.set()


def test_the_process_recovers_a_lost_job_where_no_worker_is_left_and_ends_at_sigterm(
    bench: Bench, service_env: dict[str, str], tmp_path: Path
) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "maintenance"],
            # Between two renewals it would sleep for minutes: it is the signal that ends it.
            env={
                **os.environ,
                **service_env,
                "EGRPO_REAPER_SECONDS": "0.3",
                "EGRPO_MAINTENANCE_LEASE_SECONDS": "1000",
            },
            stdout=log,
            stderr=log,
        )
    try:
        job_id = bench.submit()
        with transaction(bench.sessions) as session:
            assert leases.claim(session, "dead", timedelta(seconds=60)) is not None
            session.execute(update(Job).values(lease_expires_at=Job.created_at))
        wait_for(lambda: bench.job(job_id).status == "queued")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert "event=maintenance_stopped" in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
