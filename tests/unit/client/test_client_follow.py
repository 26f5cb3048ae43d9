"""Following a job over streams that break, that say nothing, and that do not come through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from scripted_service import Half, cut_off, job, problem, script, stream

from egrpo_client.aio import follow as follow_module
from egrpo_client.errors import ApiError, JobEndedError, JobTimeoutError, UnreachableError
from egrpo_client.exchange import Event, EventReader


def html(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text="<html>", headers={"content-type": "text/html"})


def shown(status: str = "running", **fields: object) -> httpx.Response:
    return httpx.Response(200, json=job(status, spec={}, **fields))


def page(*seqs: int, status: str = "running", has_more: bool = False) -> httpx.Response:
    events = [{"seq": seq, "type": "log", "data": {}} for seq in seqs]
    return httpx.Response(200, json={"data": events, "has_more": has_more, "job_status": status, "job": job(status)})


def seqs(updates: list[Any]) -> list[int]:
    return [event["seq"] for update in updates for event in update.events]


def test_a_broken_stream_goes_on_behind_the_last_event(half: Half) -> None:
    answer, requests = script(shown("queued"), stream(1, 2), cut_off, stream(3, status="succeeded", done=True))
    updates = list(half.client(answer).job("job_1").updates())
    assert seqs(updates) == [1, 2, 3]
    assert [update.job["status"] for update in updates] == ["queued", "running", "succeeded"]
    assert updates[-1].job["spec"] == {}, "a stream's job has no spec; the first answer's is kept"
    assert [request.headers.get("Last-Event-ID") for request in requests] == [None, "0", "2", "2"]


def test_a_batch_that_is_cut_in_two_is_seen_once(half: Half) -> None:
    torn = httpx.Response(
        200,
        text='id: 1\nevent: log\ndata: {"seq": 1, "type": "log"}\n\nid: 2\nevent: log\ndata: {"se',
        headers={"content-type": "text/event-stream"},
    )
    answer, requests = script(shown(), torn, stream(1, 2, status="succeeded", done=True))
    assert [event["seq"] for event in half.client(answer).job("job_1").events()] == [1, 2]
    assert requests[2].headers["Last-Event-ID"] == "0"


def test_where_streams_do_not_come_through_it_asks(half: Half) -> None:
    answer, requests = script(shown(), html, page(1, 2), page(), page(3, status="succeeded"))
    updates = list(half.client(answer).job("job_1").updates())
    assert seqs(updates) == [1, 2, 3]
    assert updates[-1].job["status"] == "succeeded"
    assert [request.url.params.get("after") for request in requests[2:]] == ["0", "2", "2"]
    assert requests[2].url.params["wait"] == "30.0"


def test_streams_that_say_nothing_are_given_up_for_questions(half: Half) -> None:
    silent = [httpx.Response(200, text="", headers={"content-type": "text/event-stream"})] * 2
    answer, requests = script(shown(), cut_off, *silent, page(1, status="succeeded"))
    assert seqs(list(half.client(answer).job("job_1").updates())) == [1]
    assert len(requests) == 5


def test_a_service_that_stays_away_is_given_up(half: Half) -> None:
    answer, requests = script(shown(), *[cut_off] * 99)
    with pytest.raises(UnreachableError):
        list(half.client(answer).job("job_1").updates())
    streams = [request for request in requests if request.url.path.endswith("/stream")]
    assert len(streams) == 1 + follow_module.SILENT_STREAMS
    assert len(requests) < 40


def test_a_refusal_is_not_repeated(half: Half) -> None:
    answer, requests = script(shown(), problem(401, retryable=False))
    with pytest.raises(ApiError):
        list(half.client(answer).job("job_1").updates())
    assert len(requests) == 2


def test_wait_returns_the_job_that_succeeded(half: Half) -> None:
    answer, _ = script(shown("queued"), stream(1, status="succeeded", done=True))
    assert half.client(answer).job("job_1").wait()["status"] == "succeeded"


def test_wait_raises_how_it_ended_unless_told_otherwise(half: Half) -> None:
    reason = {"code": "reward_failed", "message": "the reward did not answer", "retryable": True, "actor": "user"}
    ended = shown("failed", status_reason=reason)
    answer, _ = script(ended, stream(status="failed", done=True), ended, stream(status="failed", done=True))
    client = half.client(answer)
    with pytest.raises(JobEndedError, match="Job job_1 failed") as raised:
        client.job("job_1").wait()
    assert raised.value.job["status"] == "failed"
    assert client.job("job_1").wait(check=False)["status"] == "failed"


class Clock:
    """Stands still but for what the answers take."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_wait_ends_when_its_time_is_over(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(f"egrpo_client.{half.name}.follow.time", clock)

    def after_25_s(answer: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
        def answered(_: httpx.Request) -> httpx.Response:
            clock.now += 25
            return answer

        return answered

    answer, requests = script(*map(after_25_s, [shown(), page(), page(), page()]))
    with pytest.raises(JobTimeoutError, match=r"Job job_1 is running; the time to wait for it is over"):
        half.client(answer).job("job_1").wait(timeout_s=70)
    assert [request.url.params.get("wait") for request in requests] == [None, "30.0", "20.0"]


def lines(*numbers: int, status: str = "running", has_more: bool = False) -> httpx.Response:
    found = [{"number": number, "message": "m"} for number in numbers]
    cursor = f"after-{numbers[-1] if numbers else 'none'}"
    return httpx.Response(200, json={"data": found, "has_more": has_more, "next_cursor": cursor, "job_status": status})


def test_a_log_is_read_to_its_end_or_followed_to_the_jobs(half: Half) -> None:
    answer, requests = script(lines(1, 2, has_more=True), lines(3))
    assert [line["number"] for line in half.client(answer).job("job_1").logs(tail=3)] == [1, 2, 3]
    sent = [dict(request.url.params) for request in requests]
    assert sent == [{"tail": "3", "wait": "0.0"}, {"cursor": "after-2", "wait": "0.0"}]
    answer, requests = script(lines(1), lines(), lines(2, status="failed"))
    assert [line["number"] for line in half.client(answer).job("job_1").logs(follow=True)] == [1, 2]
    assert {request.url.params["wait"] for request in requests} == {"30.0"}


def test_actions_keep_the_newest_state(half: Half) -> None:
    answer, requests = script(*[httpx.Response(200, json=job(status)) for status in ("paused", "queued", "cancelled")])
    handle = half.client(answer).job("job_1")
    assert handle.state is None
    assert [handle.pause()["status"], handle.resume()["status"], handle.cancel()["status"]] == [
        "paused",
        "queued",
        "cancelled",
    ]
    assert handle.state["status"] == "cancelled"
    assert [request.url.path.rpartition("/")[2] for request in requests] == ["pause", "resume", "cancel"]


def test_lines_become_events() -> None:
    reader = EventReader()
    lines = [": ping", "", "event: log", "id: 4", 'data: {"a":', "data:1}", "", 'data: {"b": 2}', "", "", "id: 5", ""]
    assert list(filter(None, map(reader.take, lines))) == [
        Event("log", {"a": 1}, "4"),
        Event("message", {"b": 2}, None),
    ]
