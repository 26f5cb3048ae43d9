"""Secrets are put in wherever they can be, and looked for wherever they must not come out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from api_bench import SPEC, Bench
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text

from api.main import create_app
from jobs import api_keys
from jobs.sealing import new_key
from jobs.settings import Settings

CANARY = "canary0token0that0must0not0be0seen"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with_key = settings.model_copy(update={"secret_keys": SecretStr(new_key())})
    with TestClient(create_app(with_key), raise_server_exceptions=False) as client:
        yield Bench(client, with_key)


def tables(bench: Bench) -> str:
    """Returns all that the database holds, as text."""
    with bench.transaction() as session:
        names = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        rows = [session.execute(text(f'SELECT * FROM "{name}"')).all() for name in names]
    return repr(rows)


def test_what_was_entrusted_is_nowhere_to_be_seen(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = bench.post("/v1/secrets", {"name": "hub", "value": CANARY}, Idempotency_Key="s").json()
    issued = bench.post("/v1/api-keys", {"name": "ci", "scopes": ["jobs:read"]}, Idempotency_Key="k").json()
    hook = bench.post("/v1/webhook-endpoints", {"url": "https://hooks.example.com/x"}, Idempotency_Key="h").json()
    spec = {**SPEC, "secrets": {"HF_TOKEN": secret["id"]}}
    job = bench.post("/v1/jobs", spec).json()
    answers = [
        bench.client.put(f"/v1/secrets/{secret['id']}", json={"value": CANARY * 2}, headers=bench.auth()),
        bench.post("/v1/secrets", {"name": "hub", "value": CANARY}),
        bench.post("/v1/secrets", {"name": "hub", "value": CANARY}, Idempotency_Key="s"),
        bench.post("/v1/secrets", {"name": "hub2", "value": CANARY}, Idempotency_Key="s"),
        bench.post("/v1/jobs/validate", spec),
        *(bench.get(f"/v1/jobs/{job['id']}{part}") for part in ("", "/events", "/attempts", "/logs")),
        *(bench.get(f"/v1/{list_}") for list_ in ("secrets", "api-keys", "webhook-endpoints", "audit-events", "jobs")),
        bench.client.get("/openapi.json"),
    ]
    shown = " ".join(answer.text for answer in answers) + logged(caplog)
    for hidden in (CANARY, issued["key"], hook["secret"], hook["secret"].removeprefix("whsec_"), bench.key):
        assert hidden not in shown
        assert hidden not in tables(bench)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Returns what the service logged; the tests' own client logs the URLs that it asks for."""
    return "\n".join(caplog.handler.format(record) for record in caplog.records if not record.name.startswith("http"))


# Each is what somebody sends by mistake, with the secret in the wrong place.
def misplaced(key: str) -> list[tuple[str, str, Any, dict[str, str]]]:
    return [
        ("POST", "/v1/secrets", {"name": "hub", "value": [CANARY]}, {}),
        ("POST", "/v1/secrets", {"name": "hub", "value": {"token": CANARY}}, {}),
        ("POST", "/v1/secrets", {"name": "hub", "token": CANARY}, {}),
        ("POST", "/v1/secrets", {"name": "hub", "value": CANARY + "\0"}, {}),
        ("POST", "/v1/secrets", {"name": "hub", "value": CANARY * 4000}, {}),
        ("POST", "/v1/secrets", CANARY, {}),
        ("POST", "/v1/jobs", {**SPEC, "secrets": {"HF_TOKEN": CANARY}}, {}),
        ("POST", "/v1/jobs", {**SPEC, "hf_token": CANARY}, {}),
        ("POST", "/v1/jobs", {**SPEC, "base_model": {"repo": "a/b", "revision": "main", "token": CANARY}}, {}),
        ("POST", "/v1/webhook-endpoints", {"url": f"https://user:{CANARY}@hooks.example.com/"}, {}),
        ("GET", f"/v1/jobs?api_key={CANARY}", None, {}),
        ("GET", "/v1/jobs", None, {"Authorization": f"Bearer {CANARY}"}),
        ("GET", "/v1/jobs", None, {"Authorization": f"Basic {CANARY}"}),
        ("GET", "/v1/jobs", None, {"Authorization": CANARY, "X-API-Key": CANARY, "Cookie": f"key={CANARY}"}),
        ("GET", f"/v1/jobs/{key}", None, {}),
        ("POST", f"/v1/jobs/{key}/cancel", None, {}),
    ]


def test_a_secret_in_the_wrong_place_is_not_logged_and_not_kept(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = api_keys.new_key()
    for method, url, body, headers in misplaced(key):
        sent = None if body is None else json.dumps(body)
        typed = {"Content-Type": "application/json"} if sent else {}
        response = bench.client.request(method, url, content=sent, headers={**bench.auth(), **typed, **headers})
        assert 400 <= response.status_code < 500, (method, url, response.text)
        if key not in url:
            assert CANARY not in response.text, (method, url, body, headers)
    for hidden in (CANARY, key, bench.key):
        assert hidden not in logged(caplog)
        assert hidden not in tables(bench)


def test_what_breaks_tells_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the database carries the statement and its values; they are neither logged nor answered."""
    caplog.set_level(logging.DEBUG)
    with bench.transaction() as session:
        session.execute(text("ALTER TABLE secrets ADD CONSTRAINT broken CHECK (name <> 'hub')"))
        session.execute(text("ALTER TABLE api_keys ADD CONSTRAINT broken CHECK (name <> 'ci')"))
    answers = [
        bench.post("/v1/secrets", {"name": "hub", "value": CANARY}),
        bench.post("/v1/api-keys", {"name": "ci", "scopes": ["jobs:read"]}),
    ]
    assert [answer.status_code for answer in answers] == [500, 500]
    shown = " ".join(answer.text for answer in answers)
    assert CANARY not in shown + logged(caplog)
    assert "INSERT" not in shown
    assert "ega_" not in shown
