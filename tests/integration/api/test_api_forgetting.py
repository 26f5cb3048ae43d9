"""What is forgotten when it is old, and not before: the answers to POSTs, and the logs of jobs that ended."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from api_bench import SPEC, Bench
from sqlalchemy import func, select, text

from jobs import idempotency_keys, logs
from jobs.logs import Line
from jobs.settings import Settings
from jobs.tables import IdempotencyKey
from worker.maintenance import PERIODIC, Context
from worker.settings import WorkerSettings


@pytest.fixture
def context(bench: Bench, settings: Settings) -> Context:
    kept = WorkerSettings(**{**settings.model_dump(), "idempotency_seconds": 7200, "retain_logs_days": 10})
    return Context(kept, bench.services.sessions, bench.services.store, threading.Event())


def create(bench: Bench, key: str) -> Any:
    response = bench.post("/v1/jobs", SPEC, Idempotency_Key=key)
    assert response.status_code == 201
    return response


def num_keys(bench: Bench) -> int:
    with bench.transaction() as session:
        return session.scalars(select(func.count()).select_from(IdempotencyKey)).one()


def test_keys_are_forgotten_when_they_are_old(bench: Bench, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_keys, "_AT_ONCE", 2)
    (task,) = [task for task in PERIODIC if task.name == "idempotency_keys"]
    first = {key: create(bench, key).json()["id"] for key in ("a", "b", "c", "d")}
    with bench.transaction() as session:
        age = text("UPDATE idempotency_keys SET created_at = now() - interval '7201 s' WHERE key <> 'd'")
        session.execute(age)
    task.run(context)
    assert num_keys(bench) == 1
    assert create(bench, "d").headers["idempotency-replayed"] == "true"
    again = create(bench, "a")
    assert "idempotency-replayed" not in again.headers
    assert again.json()["id"] not in first.values()


def test_a_key_that_somebody_holds_is_passed_over_and_a_stop_ends_the_task(bench: Bench, context: Context) -> None:
    (task,) = [task for task in PERIODIC if task.name == "idempotency_keys"]
    for key in ("a", "b"):
        create(bench, key)
    with bench.transaction() as session:
        session.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '1 day'"))
    with bench.transaction() as holder:
        holder.execute(text("SELECT 1 FROM idempotency_keys WHERE key = 'a' FOR UPDATE"))
        task.run(context)
        assert num_keys(bench) == 1
    context.stopping.set()
    task.run(context)
    assert num_keys(bench) == 1


def test_logs_are_forgotten_long_after_their_job_has_ended(
    bench: Bench, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_FORGOTTEN_AT_ONCE", 1)
    (task,) = [task for task in PERIODIC if task.name == "old_logs"]
    ended_before_days = {"old": 11, "older": 12, "young": 9, "running": None}
    ids = {name: create(bench, name).json()["id"] for name in ended_before_days}
    with bench.transaction() as session:
        for name, days in ended_before_days.items():
            logs.append(session, ids[name], 1, 1, [Line("output", "info", name)] * 2)
            ended = "status = 'failed', finished_at = now() - make_interval(days => :days)"
            if days is not None:
                session.execute(text(f"UPDATE jobs SET {ended} WHERE id = :id"), {"id": ids[name], "days": days})
    task.run(context)
    kept = {name for name, id in ids.items() if bench.get(f"/v1/jobs/{id}/logs").json()["data"]}
    assert kept == {"young", "running"}
