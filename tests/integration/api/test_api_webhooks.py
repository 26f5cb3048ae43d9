"""Webhook endpoints and their deliveries over HTTP; what is sent is tested with the maintenance process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_bench import SPEC, Bench, assert_problem
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.main import create_app
from jobs.sealing import new_key
from jobs.settings import Settings
from jobs.webhooks import MAX_ENDPOINTS

PATH = "/v1/webhook-endpoints"
URL = "https://hooks.example.com/egrpo"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with_key = settings.model_copy(update={"secret_keys": SecretStr(new_key())})
    with TestClient(create_app(with_key), raise_server_exceptions=False) as client:
        yield Bench(client, with_key)


def make(bench: Bench, **fields: Any) -> dict[str, Any]:
    made = bench.post(PATH, {"url": URL, **fields})
    assert made.status_code == 201, made.text
    return dict(made.json())


def patch(bench: Bench, endpoint: dict[str, Any], **changes: Any) -> Any:
    return bench.client.patch(f"{PATH}/{endpoint['id']}", json=changes, headers=bench.auth())


def deliveries(bench: Bench, endpoint: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    return list(bench.get(f"{PATH}/{endpoint['id']}/deliveries", **query).json()["data"])


def test_an_endpoint_from_its_making_to_its_end(bench: Bench) -> None:
    made = make(bench, events=["job.failed", "job.failed", "job.succeeded"])
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["events"], made["enabled"]) == (["job.failed", "job.succeeded"], True)
    assert bench.get(f"{PATH}/{made['id']}").json() == made
    assert bench.get(PATH).json()["data"] == [made]
    assert secret not in bench.get(PATH).text
    changed = patch(bench, made, enabled=False, description="mine").json()
    assert (changed["enabled"], changed["disabled_reason"], changed["url"]) == (False, "user", URL)
    assert patch(bench, made, enabled=True).json()["disabled_at"] is None
    assert bench.client.delete(f"{PATH}/{made['id']}", headers=bench.auth()).status_code == 204
    assert_problem(bench.get(f"{PATH}/{made['id']}"), 404, "not_found")


def test_a_secret_is_shown_once_and_rotated(bench: Bench) -> None:
    first = bench.post(PATH, {"url": URL}, Idempotency_Key="k")
    again = bench.post(PATH, {"url": URL}, Idempotency_Key="k")
    assert again.json() == {**first.json(), "secret": None}
    rotated = bench.post(f"{PATH}/{first.json()['id']}/rotate-secret")
    assert rotated.status_code == 201
    assert rotated.json()["secret"] not in (None, first.json()["secret"])


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/url", "missing"),
        ({"url": "http://example.com/"}, "/url", "url_not_allowed"),
        ({"url": "https://127.0.0.1/"}, "/url", "url_not_allowed"),
        ({"url": "https://user:pass@example.com/"}, "/url", "url_not_allowed"),
        ({"url": URL, "events": []}, "/events", "too_short"),
        ({"url": URL, "events": ["job.exploded"]}, "/events/0", "not_allowed"),
        ({"url": URL, "secret": "whsec_mine"}, "/secret", "unknown_field"),
    ],
)
def test_a_wrong_endpoint_is_refused_by_field(bench: Bench, body: dict[str, Any], pointer: str, code: str) -> None:
    errors = assert_problem(bench.post(PATH, body), 422, "invalid_request")["errors"]
    assert (errors[0]["pointer"], errors[0]["code"]) == (pointer, code)


def test_a_change_is_checked_like_a_new_one(bench: Bench) -> None:
    made = make(bench)
    for changes, pointer in (({"url": "https://10.0.0.1/"}, "/url"), ({"events": None}, "/events"), ({"id": 1}, "/id")):
        errors = assert_problem(patch(bench, made, **changes), 422, "invalid_request")["errors"]
        assert errors[0]["pointer"] == pointer


def test_what_happens_is_written_down_for_those_who_asked(bench: Bench) -> None:
    everything, ends = make(bench), make(bench, events=["job.cancelled"])
    job = bench.submit()
    bench.post(f"/v1/jobs/{job['id']}/cancel")
    told = deliveries(bench, everything)
    assert [each["type"] for each in told] == ["job.cancelled", "job.queued"]  # Newest first.
    assert [each["type"] for each in deliveries(bench, ends)] == ["job.cancelled"]
    cancelled = told[0]
    assert (cancelled["data"]["job_id"], cancelled["data"]["status"]) == (job["id"], "cancelled")
    assert (cancelled["status"], cancelled["attempts"]) == ("pending", 0)
    assert deliveries(bench, everything, type="job.queued") == told[1:]
    assert deliveries(bench, everything, status="failed") == []
    one = bench.get(f"{PATH}/{everything['id']}/deliveries/{cancelled['id']}")
    assert one.json() == cancelled
    assert_problem(bench.get(f"{PATH}/{ends['id']}/deliveries/{cancelled['id']}"), 404, "not_found")


def test_while_an_endpoint_is_disabled_nothing_is_lost_in_silence(bench: Bench) -> None:
    made = make(bench)
    patch(bench, made, enabled=False)
    bench.submit()
    (missed,) = deliveries(bench, made)
    assert (missed["status"], missed["error"]) == ("failed", "the endpoint was disabled")
    again = f"{PATH}/{made['id']}/deliveries/{missed['id']}/redeliver"
    assert assert_problem(bench.post(again), 409, "invalid_state")["allowed_actions"] == ["enable"]
    assert_problem(bench.post(f"{PATH}/{made['id']}/test"), 409, "invalid_state")
    patch(bench, made, enabled=True)
    sent = bench.post(again)
    assert (sent.status_code, sent.json()["status"], sent.json()["id"]) == (201, "pending", missed["id"])


def test_a_ping_goes_to_an_endpoint_whatever_it_wants_and_once_for_a_key(bench: Bench) -> None:
    made = make(bench, events=["job.failed"])
    first = bench.post(f"{PATH}/{made['id']}/test", Idempotency_Key="k")
    assert (first.status_code, first.json()["type"]) == (201, "webhook.ping")
    assert bench.post(f"{PATH}/{made['id']}/test", Idempotency_Key="k").json() == first.json()
    assert len(deliveries(bench, made)) == 1


def test_another_project_neither_sees_nor_hears_it(bench: Bench) -> None:
    made = make(bench)
    message = bench.post(f"{PATH}/{made['id']}/test").json()
    one = f"{PATH}/{made['id']}"
    calls = [
        ("GET", one, None), ("PATCH", one, {"enabled": False}), ("DELETE", one, None),
        ("POST", f"{one}/test", None), ("POST", f"{one}/rotate-secret", None), ("GET", f"{one}/deliveries", None),
        ("GET", f"{one}/deliveries/{message['id']}", None),
        ("POST", f"{one}/deliveries/{message['id']}/redeliver", None),
    ]  # fmt: skip
    for method, path, body in calls:
        answer = bench.client.request(method, path, json=body, headers=bench.auth(bench.other_key))
        assert_problem(answer, 404, "not_found")
    assert bench.get(PATH, key=bench.other_key).json()["data"] == []
    theirs = bench.post("/v1/jobs", {**SPEC, "name": "theirs"}, key=bench.other_key)
    assert theirs.status_code == 201
    assert [each["id"] for each in deliveries(bench, made)] == [message["id"]]


def test_a_project_has_so_many_and_no_more(bench: Bench) -> None:
    for _ in range(MAX_ENDPOINTS):
        make(bench)
    assert str(MAX_ENDPOINTS) in assert_problem(bench.post(PATH, {"url": URL}), 409, "in_use")["detail"]
