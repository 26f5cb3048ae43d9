"""A secret's way from the API to the trainer, and all the places where it must not turn up."""

import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text
from worker_bench import Bench

from api.main import create_app
from jobs import api_keys
from jobs.db import transaction
from jobs.rekey import rekey
from jobs.sealing import Sealer, new_key
from jobs.tables import Base

CANARY = 'hf_canary/that+nobody="may" see'
FORMS = ("hf_canary", "that+nobody", "that%2Bnobody")


class Client:
    """A user of the API, who notes every answer."""

    def __init__(self, http: TestClient, key: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {key}"}
        self.answers: list[str] = []

    def call(self, method: str, path: str, status: int, body: Any = None) -> Any:
        answer = self._http.request(method, path, json=body, headers=self._headers)
        self.answers.append(answer.text + str(answer.headers))
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def keep(self, value: str = CANARY) -> str:
        return str(self.call("POST", "/v1/secrets", 201, {"name": "token", "value": value})["id"])


def spec(secret_id: str) -> dict[str, Any]:
    return {
        "name": "run",
        "base_model": "tiny-flux-shapes",
        "prompts": {"inline": ["a red circle"] * 20},
        "reward": {"components": [{"type": "shapes"}]},
        "secrets": {"HF_TOKEN": secret_id},
    }


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    bench.settings = bench.settings.model_copy(update={"secret_keys": SecretStr(new_key())})
    with transaction(bench.sessions) as session:
        key = api_keys.create(session, api_keys.project_named(session, "default"), "test")
    with TestClient(create_app(bench.settings), raise_server_exceptions=False) as http:
        yield Client(http, key)


def in_the_database(bench: Bench) -> str:
    """Returns every row of every table, as text."""
    with transaction(bench.sessions) as session:
        rows = [session.scalars(text(f"SELECT t::text FROM {name} t")).all() for name in Base.metadata.tables]
    return "\n".join(row for table in rows for row in table)


def test_the_trainer_gets_the_value_and_nobody_else_sees_it(
    bench: Bench, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The canary: a trainer that says its secret in every way that it has, and then fails."""
    caplog.set_level(logging.DEBUG)
    said = [
        json.dumps({"type": "log", "level": "info", "message": f"logged in with {CANARY}"}),
        json.dumps({"type": "phase", "phase": CANARY}),
        f"no event {CANARY}",
    ]
    error = {"code": "model_gated", "message": f"401 for https://hub/?token={CANARY}", "retryable": False}
    last_words = f"Traceback: {CANARY} {json.dumps(CANARY)} {quote(CANARY, safe='')}"
    bench.script(attempts={"1": {"3": {"raw": "\n".join(said), "exit": 77, "error": error, "stderr": last_words}}})
    secret_id = client.keep()
    assert client.call("POST", "/v1/jobs/validate", 200, spec(secret_id))["spec"]["secrets"] == {"HF_TOKEN": secret_id}
    job_id = client.call("POST", "/v1/jobs", 201, spec(secret_id))["id"]
    bench.run()

    (trainer,) = bench.trainers()
    assert trainer["environ"]["HF_TOKEN"] == CANARY
    assert "canary" not in str(trainer["argv"])
    assert "EGRPO_SECRET_KEYS" not in trainer["environ"]
    job = client.call("GET", f"/v1/jobs/{job_id}", 200)
    assert (job["status"], job["status_reason"]["code"]) == ("failed", "model_gated")
    assert "?token=[redacted]" in job["status_reason"]["message"]
    events = client.call("GET", f"/v1/jobs/{job_id}/events?limit=200", 200)["data"]
    assert any("logged in with [redacted]" in str(event) for event in events)
    assert client.call("GET", f"/v1/secrets/{secret_id}", 200)["last_used_at"] is not None
    client.call("GET", "/v1/secrets", 200)
    client.call("POST", "/v1/secrets", 409, {"name": "token", "value": CANARY})
    client.call("POST", "/v1/secrets", 422, {"nmae": "token", "value": CANARY, "name": CANARY * 20})
    client.call("POST", "/v1/secrets", 422, {"name": "other", "value": [CANARY]})
    client.call("PUT", f"/v1/secrets/{secret_id}", 200, {"value": CANARY + "2"})

    assert "event=attempt_ended" in caplog.text
    assert "event=bad_trainer_line" in caplog.text
    for place in (*client.answers, in_the_database(bench), caplog.text):
        assert not any(form in place for form in FORMS), place[:2000]


def test_each_attempt_gets_the_value_of_its_time(bench: Bench, client: Client) -> None:
    bench.script(steps=6, attempts={"1": {"3": {"signal": 9}}})
    secret_id = client.keep("the first value")
    job_id = client.call("POST", "/v1/jobs", 201, spec(secret_id))["id"]
    bench.run(retry_seconds=60)
    client.call("PUT", f"/v1/secrets/{secret_id}", 200, {"value": "the second value"})
    bench.end_back_off(job_id)
    bench.run()
    assert [each["environ"]["HF_TOKEN"] for each in bench.trainers()] == ["the first value", "the second value"]
    assert bench.job(job_id).status == "succeeded"


def test_a_job_whose_secret_was_deleted_fails_and_says_whose_fault_it_is(bench: Bench, client: Client) -> None:
    secret_id = client.keep()
    job_id = client.call("POST", "/v1/jobs", 201, spec(secret_id))["id"]
    client.call("DELETE", f"/v1/secrets/{secret_id}", 204)
    bench.run()
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.status_reason["code"], job.status_reason["actor"]) == ("failed", "secret_missing", "user")
    assert bench.trainers() == []


def test_a_worker_without_the_key_starts_no_trainer(bench: Bench, client: Client) -> None:
    job_id = client.call("POST", "/v1/jobs", 201, spec(client.keep()))["id"]
    bench.run(secret_keys=SecretStr(new_key()))
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.status_reason["code"]) == ("failed", "secret_unreadable")
    assert bench.trainers() == []


def test_after_rekey_the_old_key_is_not_needed(bench: Bench, client: Client) -> None:
    (old,) = bench.settings.sealing_keys()
    job_id = client.call("POST", "/v1/jobs", 201, spec(client.keep()))["id"]
    new = new_key()
    assert rekey(bench.sessions, Sealer((new, old))) == 1
    bench.run(secret_keys=SecretStr(new))
    assert bench.job(job_id).status == "succeeded"
    assert bench.trainers()[0]["environ"]["HF_TOKEN"] == CANARY
