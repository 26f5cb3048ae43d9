"""GPU time by day and type, of attempts that have ended and of those that run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from api_bench import Bench, assert_problem
from sqlalchemy import update

from jobs import gpu_time
from jobs.tables import Attempt


def days(bench: Bench, **params: Any) -> list[tuple[str, str, float]]:
    response = bench.get("/v1/usage", **params)
    assert response.status_code == 200, response.text
    return [(row["day"], row["gpu_type"], row["gpu_seconds"]) for row in response.json()["data"]]


def test_by_day_and_type(bench: Bench) -> None:
    assert days(bench) == []
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    with bench.transaction() as session:
        before, after = midnight - timedelta(hours=1), midnight + timedelta(hours=2)
        gpu_time.add(session, bench.project, "h100", 2, before, after)
        gpu_time.add(session, bench.project, "h100", 1, midnight, after)
        gpu_time.add(session, bench.project, "a100", 1, midnight, after)
    march = {"from_day": "2026-02-01", "to_day": "2026-03-01"}
    told = [("2026-02-28", "h100", 7200.0), ("2026-03-01", "a100", 7200.0), ("2026-03-01", "h100", 21600.0)]
    assert days(bench, **march) == told
    assert days(bench, **{**march, "from_day": "2026-03-01"}) == told[1:]
    assert days(bench, **{**march, "to_day": "2026-02-28"}) == told[:1]
    assert days(bench) == []
    first = bench.get("/v1/usage", limit=2, **march).json()
    assert days(bench, limit=2, cursor=first["next_cursor"], **march) == told[2:]
    assert days(bench, key=bench.other_key, **march) == []
    admin = bench.key_with("usage:read", "admin")
    assert days(bench, key=admin, project_id=bench.project, **march) == told
    refused = bench.get("/v1/usage", key=bench.other_key, project_id=bench.project)
    assert_problem(refused, 403, "insufficient_scope")


def test_what_runs_is_charged_until_now(bench: Bench) -> None:
    bench.submit()
    claim = bench.claim()
    with bench.transaction() as session:
        began = Attempt.started_at - timedelta(hours=30)
        session.execute(update(Attempt).where(Attempt.id == claim.attempt_id).values(started_at=began))
    told = days(bench)
    assert {gpu_type for _, gpu_type, _ in told} == {"cpu"}
    assert len(told) in (2, 3)
    assert 30 * 3600 <= sum(seconds for *_, seconds in told) < 30 * 3600 + 60
    assert days(bench, to_day=told[0][0]) == told[:1], "a day that is over does not grow"


def test_what_are_no_days(bench: Bench) -> None:
    for params in (
        {"from_day": "2026-03-02", "to_day": "2026-03-01"},
        {"from_day": "2024-03-02", "to_day": "2026-03-01"},
        {"from_day": "0001-01-01", "to_day": "0001-01-02"},
        {"from_day": "9999-12-30", "to_day": "9999-12-31"},
        {"to_day": "0001-01-01"},
    ):
        (problem,) = assert_problem(bench.get("/v1/usage", **params), 422, "invalid_request")["errors"]
        assert (problem["parameter"], problem["code"]) == ("from_day", "out_of_range"), params
    assert_problem(bench.get("/v1/usage", to_day="soon"), 422, "invalid_request")
