"""Events as a stream: in order, from where its reader was, to the end."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import pytest
from api_bench import Bench, assert_problem, returned, when

from api.events import feed, stream
from api.events.feed import EventFeed
from jobs import events


def messages(text: str) -> list[tuple[str | None, str, Any]]:
    """Returns (id, name, data) of each message; comments are named ":"."""
    found: list[tuple[str | None, str, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if block.startswith(":"):
            found.append((None, ":", None))
        elif "data" in fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


def cancel(bench: Bench, job: str) -> None:
    assert bench.post(f"/v1/jobs/{job}/cancel").status_code == 200


def test_everything_there_is_then_what_comes_then_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bench.submit()["id"]
    with bench.transaction() as session:
        events.append_all(session, job, [("log", {"n": n}) for n in range(2, 252)])
    both_pages = returned(monkeypatch, feed, "read_all", times=2)
    with when(both_pages, lambda: cancel(bench, job)):
        answer = bench.get(f"/v1/jobs/{job}/events/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = messages(answer.text)
    assert [id_ for id_, _, _ in told if id_ is not None] == [str(seq) for seq in range(1, 253)]
    assert all(name == data["type"] and id_ == str(data["seq"]) for id_, name, data in told if id_ is not None)
    assert [name for id_, name, _ in told if id_ is None] == ["job", "job", "job", "done"], "two pages, the end"
    assert told[-1][2]["status"] == "cancelled"
    assert "spec" not in told[-1][2]


def test_a_job_that_is_tried_again_while_its_end_is_read_is_told_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.submit()["id"]
    bench.post(f"/v1/jobs/{job}/cancel")
    read, retried = events.read_all, threading.Event()

    def read_after_a_retry(*arguments: Any, **named: Any) -> Any:
        if not retried.is_set():
            retried.set()
            assert bench.post(f"/v1/jobs/{job}/retry").status_code == 200
        return read(*arguments, **named)

    monkeypatch.setattr(events, "read_all", read_after_a_retry)
    told = messages(bench.get(f"/v1/jobs/{job}/events/stream").text)
    assert [data["data"]["status"] for id_, _, data in told if id_ is not None] == ["queued", "cancelled"]
    assert (told[-1][1], told[-1][2]["status"]) == ("done", "cancelled"), "what was true when it was read"
    first_page = returned(monkeypatch, feed, "read_all")
    with when(first_page, lambda: cancel(bench, job)):
        rest = messages(bench.get(f"/v1/jobs/{job}/events/stream", after=2).text)
    assert [data["data"]["status"] for id_, _, data in rest if id_ is not None] == ["queued", "cancelled"]


@pytest.mark.parametrize("query", ["", "?after=0"])
def test_last_event_id_goes_on_where_the_reader_was(bench: Bench, query: str) -> None:
    job = bench.submit()["id"]
    bench.post(f"/v1/jobs/{job}/cancel")
    answer = bench.get(f"/v1/jobs/{job}/events/stream{query}", headers={"Last-Event-ID": "1"})
    assert [(id_, name) for id_, name, _ in messages(answer.text)] == [("2", "status"), (None, "job"), (None, "done")]


def test_silence_is_broken_by_signs_of_life(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.1)
    job = bench.submit()["id"]
    wait, silences, thrice = EventFeed.wait, itertools.count(1), threading.Event()

    async def counting(self: EventFeed, *arguments: Any) -> bool:
        is_woken = await wait(self, *arguments)
        if not is_woken and next(silences) == 3:
            thrice.set()
        return is_woken

    monkeypatch.setattr(EventFeed, "wait", counting)
    with when(thrice, lambda: cancel(bench, job)):
        told = messages(bench.get(f"/v1/jobs/{job}/events/stream", after=1).text)
    assert [name for _, name, _ in told].count(":") >= 2
    assert told[-1][1] == "done"


def test_a_long_stream_ends_without_done_so_that_its_reader_shows_its_key_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LONGEST_S", 0.2)
    monkeypatch.setattr(stream, "PING_S", 0.1)
    job = bench.submit()["id"]
    assert messages(bench.get(f"/v1/jobs/{job}/events/stream").text)[0][1] == "status"


def test_what_is_refused_is_a_problem_and_no_stream(bench: Bench) -> None:
    job = bench.submit()["id"]
    assert_problem(bench.get(f"/v1/jobs/{job}/events/stream", key=bench.other_key), 404, "not_found")
    assert_problem(bench.get(f"/v1/jobs/{job}/events/stream", headers={"Last-Event-ID": "x"}), 422, "invalid_request")
    assert_problem(bench.get(f"/v1/jobs/{job}/events/stream", wait=1), 422, "invalid_request")
