"""Processes die or sleep, network and store fail at random moments, and jobs end as if nothing had been.

FAULTS sets how many, SEED which ones; a failure prints both. `make chaos` runs the long form.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from chaos_faults import Faults
from chaos_invariants import (
    ENOUGH_WISHES,
    INVARIANTS,
    Evidence,
    differences,
    events_are_numbered_without_gap,
    every_adapter_is_the_undisturbed_one,
    every_attempt_has_ended,
    every_checkpoint_is_whole,
    every_job_ended_as_its_user_asked,
    every_log_is_whole,
    every_step_has_its_metric_once,
    no_attempt_wrote_after_its_end,
    no_trainer_is_left,
    only_broken_attempts_left_objects_without_a_row,
    orphans,
    wishes_are_heeded,
)
from chaos_recovery import slowest_recoveries
from chaos_schedule import KINDS, schedule
from chaos_servers import BUCKET
from chaos_service import NUM_WORKERS, WRONG_CLOCK, ChaosService, wait_for
from chaos_user import User
from minio import Minio
from sqlalchemy import Executable, text, update

from jobs.db import SessionFactory, make_engine, make_session_factory, transaction
from jobs.settings import DatabaseSettings, Settings
from jobs.store import ObjectStore
from jobs.tables import Attempt
from worker.garbage import collect

FAULTS = int(os.environ.get("FAULTS") or 20)
SEED = int(os.environ.get("SEED") or 1)
REPLAY = f"replay: make chaos FAULTS={FAULTS} SEED={SEED}"


@pytest.fixture
def service(folder: Path) -> Iterator[ChaosService]:
    with closing(ChaosService(folder)) as service:
        yield service


@pytest.fixture
def sessions(service: ChaosService) -> Iterator[SessionFactory]:
    engine = make_engine(DatabaseSettings(database_url=service.servers.database_url))
    yield make_session_factory(engine)
    engine.dispose()


@pytest.fixture
def user(service: ChaosService) -> Iterator[User]:
    user = User(list(service.api_ports.values()), service.new_key(), SEED)
    yield user
    user.close()


@pytest.fixture
def faults(service: ChaosService, user: User) -> Iterator[Faults]:
    faults = Faults(service, lambda: user.keep_busy(NUM_WORKERS + 1))
    yield faults
    faults.close()


def test_a_schedule_is_a_function_of_its_seed_and_has_every_kind() -> None:
    assert schedule(7, 20) == schedule(7, 20) != schedule(8, 20)
    assert {fault.kind for fault in schedule(7, len(KINDS))} == set(KINDS)


def test_a_difference_names_what_is_missing_and_what_came_twice() -> None:
    assert differences("steps", [1, 2, 2], [1, 2, 3]) == ["steps: missing [3], not expected [2]"]
    assert differences("steps", [2, 1], [1, 2]) == []


@pytest.mark.timeout(240 + 10 * FAULTS)
def test_jobs_end_as_if_nothing_had_ever_happened_to_a_process(
    service: ChaosService, user: User, faults: Faults, sessions: SessionFactory
) -> None:
    user.keep_busy(NUM_WORKERS)
    what = f"checkpoint of the first job, and nothing was done to it yet; {REPLAY}"
    wait_for(lambda: user.states(user.jobs[0]), what, told=user.told)
    began = time.monotonic()
    print(f"\n{REPLAY}")
    for fault in schedule(SEED, FAULTS):
        time.sleep(fault.pause_s)
        tell(began, [faults.strike(fault)])
        tell(began, user.act())
    what = f"end of all jobs; {REPLAY}"
    wait_for(lambda: tell(began, user.act()) or not user.unfinished(), what, told=user.told)
    faults.settle()
    tell(began, [f"all {len(user.jobs)} jobs have ended"])
    with transaction(sessions) as session:
        client = service.servers.s3.client()
        found = Evidence(session, client, BUCKET, service.trainers(), service.scenario, user.may_end)
        found.stopped_early = user.stopped_early
        wrong = [line for invariant in INVARIANTS for line in invariant(found)]
        assert wrong == [], "\n".join([*wrong, REPLAY])
        print(*slowest_recoveries(found, faults.struck), sep="\n")
        print(f"{len(found.trainers)} trainers for {len(user.jobs)} jobs, {len(orphans(found))} objects without a row")
        print(f"{user.num_retried} jobs failed and were tried again, {len(user.stopped_early)} were stopped early")
        assert user.num_retried <= len(user.jobs) / 5, REPLAY
        they_notice_wrong_rows(found)
        they_notice_ignored_wishes(found)
        they_notice_a_trainer_left(found)
        they_notice_wrong_objects(found, client, BUCKET)
        service.end_maintenance()
        kept = found.keys() - set(orphans(found))
        collect_garbage(service, sessions)
        assert differences("objects", found.keys(), kept) == []


def test_the_clock_of_one_host_is_an_hour_off() -> None:
    command = [sys.executable, "-c", "import time, datetime; print(time.time(), datetime.datetime.now().timestamp())"]
    told = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(WRONG_CLOCK)}, capture_output=True, check=True)
    assert [round((float(clock) - time.time()) / 60) for clock in told.stdout.split()] == [60, 60]


def collect_garbage(service: ChaosService, sessions: SessionFactory) -> None:
    """One round marks, the next one deletes; their grace periods were over long ago."""
    values = {name.removeprefix("EGRPO_").lower(): value for name, value in service.servers.env().items()}
    settings = Settings(**values, gc_grace_seconds=0)
    for _ in range(2):
        assert collect(sessions, ObjectStore(settings), settings).missing == []


def tell(began: float, lines: list[str]) -> None:
    for line in lines:
        print(f"{time.monotonic() - began:7.2f} s  {line}")


# At least one wrong row for each invariant on rows.
WRONG_ROWS = (
    (every_job_ended_as_its_user_asked, "UPDATE jobs SET status = 'failed' WHERE id = (SELECT min(id) FROM jobs)"),
    (every_job_ended_as_its_user_asked, "UPDATE jobs SET status = 'cancelled' WHERE status = 'succeeded'"),
    (every_step_has_its_metric_once, "DELETE FROM metrics WHERE step = 7 AND name = 'loss'"),
    (every_step_has_its_metric_once, "UPDATE metrics SET value = value + 0.7 WHERE step = 7 AND name = 'loss'"),
    (events_are_numbered_without_gap, "DELETE FROM events WHERE seq = 2"),
    (events_are_numbered_without_gap, "UPDATE jobs SET next_seq = next_seq + 1"),
    (every_log_is_whole, "DELETE FROM log_lines WHERE number = 1"),
    (every_log_is_whole, "UPDATE log_lines SET attempt = attempt + 1 WHERE number = 1 AND attempt = 1"),
    (every_log_is_whole, "DELETE FROM log_lines WHERE message LIKE 'event=attempt_succeeded%'"),
    (every_attempt_has_ended, "UPDATE attempts SET finished_at = NULL WHERE id = (SELECT min(id) FROM attempts)"),
    (every_attempt_has_ended, "UPDATE jobs SET attempt = attempt + 1"),
    (no_attempt_wrote_after_its_end, "UPDATE checkpoints SET created_at = created_at + interval '1 hour'"),
    (no_attempt_wrote_after_its_end, "UPDATE metrics SET created_at = created_at + interval '1 hour'"),
    (every_adapter_is_the_undisturbed_one, "UPDATE checkpoints SET deleted_at = now() WHERE kind = 'adapter'"),
    (only_broken_attempts_left_objects_without_a_row, "DELETE FROM artifacts"),
)


@contextmanager
def changed(found: Evidence, statement: Executable) -> Iterator[None]:
    """Inside, the rows are as the statement makes them; afterwards they are as they were."""
    with found.session.begin_nested() as change:
        found.session.execute(statement)
        found.session.expire_all()
        yield
        change.rollback()
    found.session.expire_all()


def they_notice_wrong_rows(found: Evidence) -> None:
    for invariant, statement in WRONG_ROWS:
        with changed(found, text(statement)):
            assert invariant(found), statement
        assert invariant(found) == []


def they_notice_ignored_wishes(found: Evidence) -> None:
    found.stopped_early = {job.id for job in found.jobs if job.status == "succeeded"}
    assert wishes_are_heeded(found) or len(found.stopped_early) < ENOUGH_WISHES


def they_notice_a_trainer_left(found: Evidence) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", str(found.scenario)], stdin=subprocess.PIPE) as left:
        wait_for(lambda: str(found.scenario) in psutil.Process(left.pid).cmdline(), "process")
        found.trainers.append(left.pid)
        assert no_trainer_is_left(found) == [f"trainer {left.pid} still runs"]
        left.kill()
    assert no_trainer_is_left(found) == []


def they_notice_wrong_objects(found: Evidence, client: Minio, bucket: str) -> None:
    adapter = next(row for row in found.living_checkpoints() if row.kind == "adapter")
    stray = f"{adapter.object_prefix}/stray"
    client.put_object(bucket, stray, io.BytesIO(b"?"), 1)
    # An attempt whose worker died between its last commit and its end may have made the adapter.
    its_attempt = update(Attempt).where(Attempt.job_id == adapter.job_id, Attempt.epoch == adapter.epoch)
    for outcome in ("succeeded", "queued"):
        with changed(found, its_attempt.values(outcome=outcome)):
            noticed = f"no row names {stray}" in only_broken_attempts_left_objects_without_a_row(found)
        assert noticed == (outcome == "succeeded")
    client.remove_object(bucket, stray)
    key = f"{adapter.object_prefix}/{adapter.files[0]['path']}"
    client.put_object(bucket, key, io.BytesIO(b"x=0"), 3)
    for invariant in (every_checkpoint_is_whole, every_adapter_is_the_undisturbed_one):
        assert invariant(found)
    client.remove_object(bucket, key)
    assert every_checkpoint_is_whole(found) == [f"{adapter.id}: {key} is missing"]
    client.put_object(bucket, key, io.BytesIO(b"x=0"), 3)
    client.put_object(bucket, stray, io.BytesIO(b"?"), 1)  # For the garbage collector.
