"""Reading events, and waiting for them."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from api_bench import Bench, assert_problem
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.main import create_app
from jobs import events, lifecycle
from jobs.settings import Settings
from jobs.states import Status


def later(seconds: float, bench: Bench, job_id: str, note: str) -> threading.Timer:
    """Appends an event from another thread, some time from now."""

    def append() -> None:
        with bench.transaction() as session:
            events.append(session, job_id, "log", {"note": note})

    timer = threading.Timer(seconds, append)
    timer.start()
    return timer


def test_pages_in_order(bench: Bench) -> None:
    job = bench.submit()["id"]
    with bench.transaction() as session:
        assert events.append_all(session, job, [("log", {"n": n}) for n in range(2, 8)]) == 7
    first = bench.get(f"/v1/jobs/{job}/events", limit=5).json()
    assert [event["seq"] for event in first["data"]] == [1, 2, 3, 4, 5]
    assert (first["has_more"], first["next_cursor"], first["job_status"]) == (True, "5", "queued")
    second = bench.get(f"/v1/jobs/{job}/events", after=first["next_cursor"]).json()
    assert [event["data"]["n"] for event in second["data"]] == [6, 7]
    third = bench.get(f"/v1/jobs/{job}/events", after=7).json()
    assert (third["data"], third["has_more"], third["next_cursor"]) == ([], False, "7")


def test_log_events_are_bounded_and_all_others_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two say much at the same time, in batches of other kinds too; one of them is rolled back each other time."""
    monkeypatch.setattr(events, "MAX_LOG_EVENTS", 10)
    job = bench.submit()["id"]
    batch = [("log", {"n": 1}), ("metric", {"n": 2}), ("log", {"n": 3}), ("log", {"n": 4})]

    def say_much(rounds: int) -> None:
        for number in range(rounds):
            with contextlib.suppress(ZeroDivisionError), bench.transaction() as session:
                events.append_all(session, job, batch)
                if number % 2:
                    raise ZeroDivisionError

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(say_much, [10, 10]))
    told = bench.get(f"/v1/jobs/{job}/events").json()["data"]
    assert [event["seq"] for event in told] == list(range(1, 22))  # 1 status, 10 metrics, 10 logs
    logs = [event["data"] for event in told if event["type"] == "log"]
    assert [log.get("n") for log in logs] == [1, 3, 4] * 3 + [None]
    assert logs[-1]["level"] == "warning"
    assert "in its log alone" in logs[-1]["message"]
    assert sum(event["type"] == "metric" for event in told) == 10
    with bench.transaction() as session:
        assert events.append(session, job, "log", {}) == told[-1]["seq"], "nothing was appended"
        assert events.append(session, job, "metric", {}) == told[-1]["seq"] + 1


def test_a_wait_ends_with_the_event(bench: Bench) -> None:
    job = bench.submit()["id"]
    timer = later(0.7, bench, job, "now")
    started = time.monotonic()
    found = bench.get(f"/v1/jobs/{job}/events", after=1, wait=30).json()
    took_s = time.monotonic() - started
    timer.join()
    assert [event["data"] for event in found["data"]] == [{"note": "now"}]
    assert 0.6 < took_s < 4.5, "a look without a wake-up comes after 5 s"


def test_a_wait_without_events_ends_in_time(bench: Bench) -> None:
    job = bench.submit()["id"]
    started = time.monotonic()
    found = bench.get(f"/v1/jobs/{job}/events", after=1, wait=1).json()
    assert found["data"] == []
    assert 0.9 < time.monotonic() - started < 15


def test_nobody_waits_for_a_job_that_has_ended(bench: Bench) -> None:
    job = bench.submit()["id"]
    bench.post(f"/v1/jobs/{job}/cancel")
    started = time.monotonic()
    found = bench.get(f"/v1/jobs/{job}/events", after=2, wait=30).json()
    assert (found["data"], found["job_status"]) == ([], "cancelled")
    assert time.monotonic() - started < 15


def test_the_last_event_of_a_job_says_how_it_ended(bench: Bench) -> None:
    job = bench.submit()["id"]
    claim = bench.claim()
    with bench.transaction() as session:
        locked = lifecycle.lock(session, claim.job_id)
        lifecycle.transition(session, locked, Status.SUCCEEDED, phase="done")
    last = bench.get(f"/v1/jobs/{job}/events").json()["data"][-1]
    assert last["data"]["status"] == "succeeded"
    assert bench.get(f"/v1/jobs/{job}").json()["finished_at"] is not None


def test_an_unknown_job_is_not_waited_for(bench: Bench) -> None:
    started = time.monotonic()
    assert_problem(bench.get("/v1/jobs/job_nope/events", wait=30), 404, "not_found")
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("params", [{"after": -1}, {"wait": 61}, {"wait": "nan"}, {"limit": 201}, {"after": 2**63}])
def test_bad_parameters(bench: Bench, params: dict[str, object]) -> None:
    assert_problem(bench.get("/v1/jobs/job_nope/events", **params), 422, "invalid_request")


def test_waiting_holds_neither_connections_nor_threads(settings: Settings) -> None:
    """60 wait while the pool has 2 connections and the thread pool 40 threads; others are still served."""
    small = settings.model_copy(update={"database_pool_size": 1})
    with TestClient(create_app(small)) as client:
        bench = Bench(client, small)
        job = bench.submit()["id"]
        with ThreadPoolExecutor(60) as pool:
            waits = [pool.submit(bench.get, f"/v1/jobs/{job}/events", after=1, wait=30) for _ in range(60)]
            time.sleep(2)
            started = time.monotonic()
            assert bench.get(f"/v1/jobs/{job}").status_code == 200
            assert time.monotonic() - started < 10
            later(0, bench, job, "all").join()
            answers = [wait.result(timeout=20) for wait in waits]
    assert all(answer.json()["data"][0]["data"] == {"note": "all"} for answer in answers)


def test_a_lost_listener_only_slows_down(bench: Bench) -> None:
    job = bench.submit()["id"]
    with bench.transaction() as session:
        killed = session.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'egrpo-api-listen'")
        ).all()
    assert killed == [(True,)]
    timer = later(0.3, bench, job, "deaf")
    found = bench.get(f"/v1/jobs/{job}/events", after=1, wait=20).json()
    timer.join()
    assert found["data"][0]["data"] == {"note": "deaf"}
