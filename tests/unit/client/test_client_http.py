"""The SDK against scripted HTTP answers: what it sends, what it repeats, and what it raises."""

import json
from collections.abc import Callable

import httpx
import pytest

from egrpo_client import client as client_module
from egrpo_client.client import Client
from egrpo_client.errors import ApiError, UnreachableError

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BACKOFF_S", 0.0)


def scripted(*answers: Answer | httpx.Response) -> tuple[Client, list[httpx.Request]]:
    """Returns a client that gets these answers in turn, and the list of the requests that it sent."""
    requests: list[httpx.Request] = []
    remaining = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        each = next(remaining)
        return each if isinstance(each, httpx.Response) else each(request)

    return Client("http://service", "ega_secret", transport=httpx.MockTransport(answer)), requests


def connection_refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def cut_off(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset", request=request)


def problem(status: int, **fields: object) -> httpx.Response:
    return httpx.Response(status, json={"title": "Problem", **fields})


def test_key_goes_in_the_header_and_never_in_the_url() -> None:
    client, requests = scripted(httpx.Response(200, json={"id": "job_1"}))
    client.job("job_1")
    assert requests[0].headers["Authorization"] == "Bearer ega_secret"
    assert "ega_secret" not in str(requests[0].url)


def test_submit_sends_the_spec_with_an_idempotency_key() -> None:
    client, requests = scripted(httpx.Response(201, json={"id": "job_1"}))
    assert client.submit({"name": "a"})["id"] == "job_1"
    assert json.loads(requests[0].content) == {"name": "a"}
    assert len(requests[0].headers["Idempotency-Key"]) == 32


def test_lists_follow_the_cursor_and_stop_at_the_limit() -> None:
    pages = [
        httpx.Response(200, json={"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "next_cursor": "c1"}),
        httpx.Response(200, json={"data": [{"id": "c"}], "has_more": True, "next_cursor": "c2"}),
    ]
    client, requests = scripted(*pages)
    assert [job["id"] for job in client.jobs(limit=3, status="running")] == ["a", "b", "c"]
    assert requests[0].url.params["limit"] == "3"
    assert requests[0].url.params["status"] == "running"
    assert dict(requests[1].url.params) == {"limit": "1", "status": "running", "cursor": "c1"}


def test_a_read_is_repeated_after_a_broken_connection() -> None:
    client, requests = scripted(connection_refused, cut_off, httpx.Response(200, json={"id": "job_1"}))
    assert client.job("job_1") == {"id": "job_1"}
    assert len(requests) == 3


def test_a_submission_is_repeated_with_the_same_key() -> None:
    client, requests = scripted(cut_off, problem(503, retryable=True), httpx.Response(201, json={"id": "job_1"}))
    assert client.submit({})["id"] == "job_1"
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert len(requests) == 3


def test_a_post_without_a_key_that_may_have_arrived_is_not_repeated() -> None:
    client, requests = scripted(connection_refused, cut_off)
    with pytest.raises(UnreachableError, match="No answer from http://service"):
        client.cancel("job_1")
    assert len(requests) == 2


def test_a_retryable_problem_is_repeated_and_another_is_not() -> None:
    client, requests = scripted(problem(503, retryable=True), problem(404, code="not_found", detail="No such job."))
    with pytest.raises(ApiError, match=r"No such job\.") as raised:
        client.job("job_x")
    assert raised.value.status == 404
    assert len(requests) == 2


def test_all_field_errors_are_kept_with_their_pointers() -> None:
    errors = [
        {"pointer": "/reward/components/0/type", "code": "unknown", "detail": "no such reward", "allowed": ["shapes"]},
        {"pointer": "/training/steps", "code": "too_small", "detail": "must be at least 1"},
    ]
    client, _ = scripted(problem(422, code="invalid_spec", detail="The spec has 2 errors.", errors=errors))
    with pytest.raises(ApiError) as raised:
        client.submit({})
    assert raised.value.sentences() == [
        "The spec has 2 errors.",
        "/reward/components/0/type: no such reward (allowed: shapes)",
        "/training/steps: must be at least 1",
    ]


def test_an_answer_that_is_no_problem_document_still_has_a_sentence() -> None:
    client, _ = scripted(httpx.Response(418, text="<html>teapot</html>"))
    with pytest.raises(ApiError, match="answered 418"):
        client.job("job_1")
