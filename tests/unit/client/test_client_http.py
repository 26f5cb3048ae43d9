"""Both clients against scripted answers: what they send, what they repeat, and what they raise."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from scripted_service import Half, cut_off, job, problem, refused, script

from egrpo_client import Retries
from egrpo_client.errors import (
    ApiError,
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServiceError,
    UnexpectedAnswerError,
    UnreachableError,
    retry_after_s,
)


def created(request: httpx.Request) -> httpx.Response:
    return httpx.Response(201, json=job("queued"))


def test_key_goes_in_the_header_and_never_in_the_url(half: Half) -> None:
    answer, requests = script(httpx.Response(200, json=job("queued")))
    half.client(answer).get_job("job_1")
    assert requests[0].headers["Authorization"] == "Bearer ega_secret"
    assert "ega_secret" not in str(requests[0].url)


def test_submit_sends_the_spec_with_an_idempotency_key(half: Half) -> None:
    answer, requests = script(created, created)
    client = half.client(answer)
    assert client.submit({"name": "a"}).id == "job_1"
    assert json.loads(requests[0].content) == {"name": "a"}
    assert requests[0].headers["Content-Type"] == "application/json"
    assert len(requests[0].headers["Idempotency-Key"]) == 32
    client.submit({"name": "a"}, idempotency_key="mine")
    assert requests[1].headers["Idempotency-Key"] == "mine"


def test_lists_follow_the_cursor_and_stop_at_the_limit(half: Half) -> None:
    answer, requests = script(
        httpx.Response(200, json={"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "next_cursor": "c1"}),
        httpx.Response(200, json={"data": [{"id": "c"}], "has_more": True, "next_cursor": "c2"}),
    )
    rows = half.client(answer).list_jobs(limit=3, status=["running", "paused"], metadata={"a b": "1"})
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    first = [("status", "running"), ("status", "paused"), ("metadata[a b]", "1")]
    assert requests[0].url.params.multi_items() == [*first, ("limit", "3")]
    assert requests[1].url.params.multi_items() == [*first, ("limit", "1"), ("cursor", "c1")]


def test_ids_stay_one_segment_and_paths_of_files_keep_theirs(half: Half) -> None:
    answer, requests = script(httpx.Response(200, json=job("queued")), httpx.Response(200, content=b"x"))
    client = half.client(answer)
    client.get_job("../v1/secrets?x=1")
    assert requests[0].url.raw_path == b"/v1/jobs/..%2Fv1%2Fsecrets%3Fx%3D1"
    assert client.get_checkpoint_file("job_1", "ckpt_1", "peft/a b.json") == b"x"
    assert requests[1].url.raw_path == b"/v1/jobs/job_1/checkpoints/ckpt_1/files/peft/a%20b.json"


def test_a_list_in_another_format_comes_as_text(half: Half) -> None:
    answer, requests = script(httpx.Response(200, text="step,reward_mean\n1,0.5\n"))
    text = half.client(answer).list_metrics_text("job_1", format="csv", names=["reward_mean"])
    assert text == "step,reward_mean\n1,0.5\n"
    assert dict(requests[0].url.params) == {"format": "csv", "names": "reward_mean"}


def test_a_read_is_repeated_after_a_broken_connection(half: Half) -> None:
    answer, requests = script(refused, cut_off, httpx.Response(200, json=job("queued")))
    assert half.client(answer).get_job("job_1")["status"] == "queued"
    assert len(requests) == 3


def test_a_submission_is_repeated_with_the_same_key(half: Half) -> None:
    answer, requests = script(cut_off, problem(503, retryable=True), problem(409, retryable=True), created)
    assert half.client(answer).submit({}).id == "job_1"
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert len(requests) == 4


def test_what_may_have_arrived_and_has_no_key_is_not_repeated(half: Half) -> None:
    answer, requests = script(refused, cut_off)
    with pytest.raises(UnreachableError, match="No answer from http://service"):
        half.client(answer).update_job("job_1", {"name": "b"})
    assert len(requests) == 2


def test_what_was_too_much_had_no_effect_and_is_repeated_in_any_case(half: Half) -> None:
    answer, requests = script(problem(429, {"Retry-After": "0"}), problem(503, retryable=True))
    with pytest.raises(ServiceError):
        half.client(answer).update_job("job_1", {"name": "b"})
    assert len(requests) == 2
    answer, requests = script(problem(429, retryable=False, code="quota_exceeded"))
    with pytest.raises(RateLimitedError):
        half.client(answer).update_job("job_1", {"name": "b"})
    assert len(requests) == 1


def test_a_problem_that_is_not_retryable_is_not_repeated_whatever_its_status(half: Half) -> None:
    for status in (404, 409, 500, 503):
        answer, requests = script(problem(status, retryable=False))
        with pytest.raises(ApiError):
            half.client(answer).get_job("job_x")
        assert len(requests) == 1, status


def test_the_last_attempt_raises_what_it_got(half: Half) -> None:
    answer, requests = script(*[problem(503, retryable=True, code="database_unavailable")] * 9)
    with pytest.raises(ServiceError) as raised:
        half.client(answer, Retries(attempts=3, backoff_s=0.0)).get_job("job_1")
    assert (raised.value.code, len(requests)) == ("database_unavailable", 3)


def test_retry_after_is_kept_to_and_too_long_a_wait_is_the_callers(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(f"egrpo_client.{half.name}.runtime.sleep", slept.append if half.name == "sync" else sleep)
    limited = [problem(429, {"Retry-After": seconds}) for seconds in ("7", "0", "61")]
    answer, requests = script(*limited)
    with pytest.raises(RateLimitedError) as raised:
        half.client(answer).get_job("job_1")
    assert slept == [7.0, 0.0]
    assert (raised.value.retry_after_s, len(requests)) == (61.0, 3)


def test_retry_after_may_be_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert retry_after_s(later) == pytest.approx(3600, abs=60)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for neither in ("soon", "²", "Wed, 21 Oct 20150000000000000000 07:28:00 GMT", None):
        assert retry_after_s(neither) is None


def test_pauses_grow() -> None:
    from egrpo_client.exchange import Request

    pauses = [Retries().pause_s(Request("GET", "/"), UnreachableError(""), attempt) for attempt in range(1, 6)]
    assert pauses[4] is None
    for attempt, pause in enumerate(pauses[:4]):
        assert pause is not None
        assert 0.25 * 2**attempt <= pause <= 0.5 * 2**attempt


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (412, ConflictError),
        (422, InvalidRequestError),
        (500, ServiceError),
    ],
)
def test_each_kind_of_refusal_has_its_error(half: Half, status: int, kind: type[ApiError]) -> None:
    answer, _ = script(problem(status, code="some", detail="Some sentence.", request_id="req_1", retryable=False))
    with pytest.raises(kind, match=r"Some sentence\.") as raised:
        half.client(answer).get_job("job_1")
    assert (raised.value.status, raised.value.code, raised.value.request_id) == (status, "some", "req_1")


def test_all_field_errors_are_kept_with_their_pointers(half: Half) -> None:
    errors = [
        {"pointer": "/reward/components/0/type", "code": "unknown", "detail": "no such reward", "allowed": ["shapes"]},
        {"pointer": "/training/steps", "code": "too_small", "detail": "must be at least 1"},
    ]
    answer, _ = script(problem(422, code="invalid_spec", detail="The spec has 2 errors.", errors=errors))
    with pytest.raises(ApiError) as raised:
        half.client(answer).submit({})
    assert raised.value.sentences() == [
        "The spec has 2 errors.",
        "/reward/components/0/type: no such reward (allowed: shapes)",
        "/training/steps: must be at least 1",
    ]


def test_an_answer_that_is_no_problem_document_still_has_a_sentence(half: Half) -> None:
    answer, _ = script(httpx.Response(418, text="<html>teapot</html>"))
    with pytest.raises(ApiError, match="answered 418"):
        half.client(answer).get_job("job_1")


def test_a_page_of_something_else_is_not_taken_for_an_answer(half: Half) -> None:
    answer, _ = script(httpx.Response(200, text="<html>log in</html>", headers={"content-type": "text/html"}))
    with pytest.raises(UnexpectedAnswerError, match=r"answered with text/html instead of JSON"):
        half.client(answer).get_job("job_1")


def test_a_deletion_has_no_answer(half: Half) -> None:
    answer, requests = script(httpx.Response(204))
    assert half.client(answer).delete_checkpoint("job_1", "ckpt_1") is None
    assert requests[0].method == "DELETE"
