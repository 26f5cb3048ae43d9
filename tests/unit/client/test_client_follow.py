"""Following a job over streams that break."""

import json
from collections.abc import Callable

import httpx
import pytest

from egrpo_client import follow as follow_module
from egrpo_client.client import Client
from egrpo_client.errors import ApiError, UnreachableError
from egrpo_client.follow import follow

Answer = Callable[[httpx.Request], httpx.Response] | httpx.Response


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "BACKOFF_S", 0.0)


def scripted(*answers: Answer) -> tuple[Client, list[httpx.Request]]:
    requests: list[httpx.Request] = []
    remaining = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        each = next(remaining)
        return each if isinstance(each, httpx.Response) else each(request)

    return Client("http://service", "ega_secret", transport=httpx.MockTransport(answer)), requests


def job(status: str) -> httpx.Response:
    return httpx.Response(200, json={"id": "job_1", "status": status, "spec": {}})


def stream(*seqs: int, status: str = "running", done: bool = False) -> httpx.Response:
    """Returns one batch of events, the job behind it and, where it has ended, `done`."""
    lines = ["retry: 1000\n\n", ": ping\n\n"]
    lines += [f"id: {seq}\nevent: log\ndata: {json.dumps({'seq': seq, 'type': 'log'})}\n\n" for seq in seqs]
    state = json.dumps({"id": "job_1", "status": status})
    lines += [f"event: job\ndata: {state}\n\n", f"event: done\ndata: {state}\n\n" * done]
    return httpx.Response(200, text="".join(lines), headers={"content-type": "text/event-stream"})


def broken(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset", request=request)


def test_a_broken_stream_goes_on_behind_the_last_event() -> None:
    client, requests = scripted(job("queued"), stream(1, 2), broken, stream(3, status="succeeded", done=True))
    updates = list(follow(client, "job_1"))
    assert [event["seq"] for update in updates for event in update.events] == [1, 2, 3]
    assert [update.job["status"] for update in updates] == ["queued", "running", "succeeded"]
    assert updates[-1].job["spec"] == {}, "a stream's job has no spec; the first answer's is kept"
    assert [request.headers.get("Last-Event-ID") for request in requests] == [None, "0", "2", "2"]


def test_a_service_that_stays_away_is_given_up() -> None:
    client, requests = scripted(job("running"), *[broken] * 20)
    with pytest.raises(UnreachableError):
        list(follow(client, "job_1"))
    assert len(requests) == 2 + follow_module.RECONNECTS


def test_a_refusal_is_not_repeated() -> None:
    client, requests = scripted(job("running"), httpx.Response(401, json={"title": "no", "retryable": False}))
    with pytest.raises(ApiError):
        list(follow(client, "job_1"))
    assert len(requests) == 2
