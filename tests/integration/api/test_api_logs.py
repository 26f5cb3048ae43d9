"""Reading a job's log: in pages, from its end, by attempt and source, and while it grows."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from api_bench import Bench, assert_problem, returned, when

from api.logs import service
from jobs import leases, logs
from jobs.leases import Claim
from jobs.logs import Line
from jobs.retries import Retry
from jobs.states import StatusReason

LOST = StatusReason(code="preempted", message="shut down", retryable=True, actor="system")


def write(bench: Bench, claim: Claim, *lines: Line, first: int | None = None) -> None:
    with bench.transaction() as session:
        leases.guard(session, claim.job_id, claim.epoch)
        number = logs.last_number(session, claim.job_id) + 1 if first is None else first
        logs.append(session, claim.job_id, claim.attempt, number, lines)


def printed(*messages: str) -> list[Line]:
    return [Line("output", "info", message) for message in messages]


def two_attempts(bench: Bench) -> str:
    bench.submit()
    claim = bench.claim()
    write(bench, claim, *printed("a", "b", "c"), Line("trainer", "warning", "d"))
    with bench.transaction() as session:
        leases.end_by_reason(session, leases.guard(session, claim.job_id, claim.epoch), LOST, Retry(timedelta(0)))
    again = bench.claim()
    write(bench, again, Line("supervisor", "info", "e"), *printed("f"))
    return claim.job_id


def test_lines_in_pages_from_the_end_and_of_one_attempt_or_source(bench: Bench) -> None:
    job = two_attempts(bench)

    def found(**params: Any) -> tuple[str, bool, str]:
        body = bench.get(f"/v1/jobs/{job}/logs", **params).json()
        return "".join(line["message"] for line in body["data"]), body["has_more"], body["next_cursor"]

    text, has_more, cursor = found(limit=4)
    assert (text, has_more) == ("abcd", True)
    assert found(limit=4, cursor=cursor)[:2] == ("ef", False)
    tail, has_more, cursor = found(tail=3)
    assert (tail, has_more, found(cursor=cursor)[0]) == ("def", False, "")
    assert found(cursor=cursor)[2] == cursor, "where to go on, also when there is nothing"
    assert found(attempt=1)[0] == "abcd"
    assert found(attempt=2, tail=1)[0] == "f"
    assert found(source=["trainer", "supervisor"])[0] == "de"
    (line,) = bench.get(f"/v1/jobs/{job}/logs", source="trainer").json()["data"]
    assert {name: line[name] for name in ("number", "attempt", "source", "level", "message")} == {
        "number": 4, "attempt": 1, "source": "trainer", "level": "warning", "message": "d",
    }  # fmt: skip
    wrong: list[dict[str, Any]] = [
        {"tail": 3, "cursor": cursor}, {"cursor": "bm9wZQ"}, {"source": "me"}, {"attempt": 0}, {"tail": 201}, {"x": 1},
    ]  # fmt: skip
    for params in wrong:
        errors = assert_problem(bench.get(f"/v1/jobs/{job}/logs", **params), 422, "invalid_request")["errors"]
        assert errors[0]["parameter"].split(".")[0] == next(iter(params))


@pytest.mark.usefixtures("only_woken")
def test_a_wait_ends_with_a_line_or_when_none_can_come(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit()
    claim = bench.claim()
    path, longest_s, well_before_s = f"/v1/jobs/{claim.job_id}/logs", 60, 40
    found_nothing = returned(monkeypatch, service, "_read")
    started = time.monotonic()
    with when(found_nothing, lambda: write(bench, claim, *printed("now"))):
        found = bench.get(path, wait=longest_s).json()
    assert ([line["message"] for line in found["data"]], found["job_status"]) == (["now"], "running")
    assert time.monotonic() - started < well_before_s
    with bench.transaction() as session:
        leases.end_by_reason(session, leases.guard(session, claim.job_id, claim.epoch), LOST, Retry(timedelta(0)))
    bench.claim()
    started = time.monotonic()
    assert bench.get(path, wait=longest_s, attempt=1, cursor=found["next_cursor"]).json()["data"] == []
    cancelled = bench.submit()["id"]
    bench.post(f"/v1/jobs/{cancelled}/cancel")
    assert bench.get(f"/v1/jobs/{cancelled}/logs", wait=longest_s).json()["job_status"] == "cancelled"
    assert time.monotonic() - started < well_before_s


def test_lines_that_are_sent_again_are_there_once_and_only_the_newest_are_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_LINES", 5)
    bench.submit()
    claim = bench.claim()
    for _ in range(2):
        write(bench, claim, *printed("a", "b", "c", "d"), first=1)
    write(bench, claim, *printed("e", "f", "g" * 5000), first=5)
    lines = bench.get(f"/v1/jobs/{claim.job_id}/logs").json()["data"]
    assert [line["number"] for line in lines] == [3, 4, 5, 6, 7]
    assert lines[-1]["message"] == "g" * 2000 + " … 3000 more characters"
