"""Reading events, and waiting for them."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from api_bench import PATIENCE_S, Bench, assert_problem, returned, until, when
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.events import feed
from api.main import create_app
from jobs import events, lifecycle
from jobs.settings import Settings
from jobs.states import Status

# The longest wait that may be asked for, and what is well before its end on any machine.
LONGEST_S, WELL_BEFORE_S = 60, 40


def say(bench: Bench, job_id: str, note: str) -> None:
    with bench.transaction() as session:
        events.append(session, job_id, "log", {"note": note})


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


@pytest.mark.usefixtures("only_woken")
def test_a_wait_ends_with_the_event(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bench.submit()["id"]
    found_nothing = returned(monkeypatch, feed, "read_all")
    started = time.monotonic()
    with when(found_nothing, lambda: say(bench, job, "now")):
        found = bench.get(f"/v1/jobs/{job}/events", after=1, wait=LONGEST_S).json()
    assert [event["data"] for event in found["data"]] == [{"note": "now"}]
    assert time.monotonic() - started < WELL_BEFORE_S


def test_a_wait_without_events_ends_in_time(bench: Bench) -> None:
    job = bench.submit()["id"]
    started = time.monotonic()
    found = bench.get(f"/v1/jobs/{job}/events", after=1, wait=1).json()
    assert found["data"] == []
    assert 0.9 < time.monotonic() - started < WELL_BEFORE_S


def test_nobody_waits_for_a_job_that_has_ended(bench: Bench) -> None:
    job = bench.submit()["id"]
    bench.post(f"/v1/jobs/{job}/cancel")
    started = time.monotonic()
    found = bench.get(f"/v1/jobs/{job}/events", after=2, wait=LONGEST_S).json()
    assert (found["data"], found["job_status"]) == ([], "cancelled")
    assert time.monotonic() - started < WELL_BEFORE_S


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
    assert_problem(bench.get("/v1/jobs/job_nope/events", wait=LONGEST_S), 404, "not_found")
    assert time.monotonic() - started < WELL_BEFORE_S


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
            waits = [pool.submit(bench.get, f"/v1/jobs/{job}/events", after=1, wait=LONGEST_S) for _ in range(60)]
            until(lambda: len(bench.services.event_feed._followers) == 60, "sixty that wait")
            started = time.monotonic()
            assert bench.get(f"/v1/jobs/{job}").status_code == 200
            assert time.monotonic() - started < WELL_BEFORE_S
            say(bench, job, "all")
            answers = [wait.result(timeout=PATIENCE_S) for wait in waits]
    assert all(answer.json()["data"][0]["data"] == {"note": "all"} for answer in answers)


def test_a_lost_listener_only_slows_down(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bench.submit()["id"]
    assert until(lambda: lose_listeners(bench), "listener") == [(True,)]
    found_nothing = returned(monkeypatch, feed, "read_all")
    started = time.monotonic()
    with when(found_nothing, lambda: say(bench, job, "deaf")):
        found = bench.get(f"/v1/jobs/{job}/events", after=1, wait=LONGEST_S).json()
    assert [event["data"] for event in found["data"]] == [{"note": "deaf"}]
    assert time.monotonic() - started < WELL_BEFORE_S


def lose_listeners(bench: Bench) -> list[tuple[bool]]:
    """Ends the connections that listen for wake-ups; returns a row for each. A new application may have none yet."""
    ended = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'egrpo-api-listen' AND datname = current_database()
    """
    with bench.transaction() as session:
        return [(bool(row[0]),) for row in session.execute(text(ended))]
