"""Secrets over HTTP: values go in, and what comes back are names and times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_bench import SPEC, Bench, assert_problem
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.main import create_app
from jobs.__main__ import main
from jobs.sealing import new_key
from jobs.settings import Settings

VALUE = "hf_0123456789abcdef"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with_key = settings.model_copy(update={"secret_keys": SecretStr(new_key())})
    with TestClient(create_app(with_key), raise_server_exceptions=False) as client:
        yield Bench(client, with_key)


def test_a_secret_from_its_making_to_its_end(bench: Bench) -> None:
    made = bench.post("/v1/secrets", {"name": "hub", "value": VALUE})
    assert made.status_code == 201
    secret = made.json()
    assert made.headers["location"] == f"/v1/secrets/{secret['id']}"
    assert set(secret) == {"id", "name", "created_at", "replaced_at", "last_used_at"}
    assert (secret["name"], secret["replaced_at"], secret["last_used_at"]) == ("hub", None, None)
    replaced = bench.client.put(made.headers["location"], json={"value": VALUE * 2}, headers=bench.auth())
    assert replaced.json()["replaced_at"] is not None
    assert bench.get("/v1/secrets").json()["data"] == [replaced.json()]
    assert bench.client.delete(made.headers["location"], headers=bench.auth()).status_code == 204
    assert_problem(bench.get(made.headers["location"]), 404, "not_found")
    assert bench.post("/v1/secrets", {"name": "hub", "value": VALUE}).status_code == 201


def test_the_same_request_makes_one_secret_and_another_value_is_another_request(bench: Bench) -> None:
    body = {"name": "hub", "value": VALUE}
    first = bench.post("/v1/secrets", body, Idempotency_Key="k")
    again = bench.post("/v1/secrets", body, Idempotency_Key="k")
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    other = bench.post("/v1/secrets", {**body, "value": VALUE + "x"}, Idempotency_Key="k")
    assert_problem(other, 422, "idempotency_key_reused")
    taken = assert_problem(bench.post("/v1/secrets", body), 409, "already_exists")
    assert first.json()["id"] in taken["detail"]


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"name": "hub"}, "/value", "missing"),
        ({"name": "hub", "value": "short"}, "/value", "too_short"),
        ({"name": "hub", "value": "x" * 20_000}, "/value", "too_long"),
        ({"name": "hub", "value": "with\0nul in it"}, "/value", "wrong_format"),
        ({"name": "hub", "value": f"{VALUE}\n"}, "/value", "wrong_format"),
        ({"name": "hub", "value": 12345678}, "/value", "wrong_type"),
        ({"name": "", "value": VALUE}, "/name", "too_short"),
        ({"name": "hub", "value": VALUE, "colour": "red"}, "/colour", "unknown_field"),
    ],
)
def test_a_wrong_secret_is_refused_by_field(bench: Bench, body: dict[str, object], pointer: str, code: str) -> None:
    errors = assert_problem(bench.post("/v1/secrets", body), 422, "invalid_request")["errors"]
    assert (errors[0]["pointer"], errors[0]["code"]) == (pointer, code)


def test_another_project_has_nothing_of_it(bench: Bench) -> None:
    secret_id = bench.post("/v1/secrets", {"name": "hub", "value": VALUE}).json()["id"]
    theirs = bench.auth(bench.other_key)
    for method, body in (("GET", None), ("PUT", {"value": VALUE}), ("DELETE", None)):
        answer = bench.client.request(method, f"/v1/secrets/{secret_id}", json=body, headers=theirs)
        assert_problem(answer, 404, "not_found")
    assert bench.get("/v1/secrets", key=bench.other_key).json()["data"] == []
    job = {**SPEC, "secrets": {"HF_TOKEN": secret_id}}
    for path in ("/v1/jobs", "/v1/jobs/validate"):
        errors = assert_problem(bench.post(path, job, key=bench.other_key), 422, "invalid_request")["errors"]
        assert (errors[0]["pointer"], errors[0]["code"]) == ("/secrets/HF_TOKEN", "unknown_secret")
    assert bench.post("/v1/jobs", job).json()["spec"]["secrets"] == {"HF_TOKEN": secret_id}


def test_only_variables_that_are_known_to_be_harmless_can_be_set(bench: Bench) -> None:
    secret_id = bench.post("/v1/secrets", {"name": "hub", "value": VALUE}).json()["id"]
    body = assert_problem(
        bench.post("/v1/jobs", {**SPEC, "secrets": {"LD_PRELOAD": secret_id}}), 422, "invalid_request"
    )
    assert (body["errors"][0]["pointer"], body["errors"][0]["code"]) == ("/secrets/LD_PRELOAD", "not_allowed")
    assert "HF_TOKEN" in body["errors"][0]["allowed"]


def test_operators_make_a_key_and_seal_everything_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.post("/v1/secrets", {"name": "hub", "value": VALUE})
    bench.post("/v1/webhook-endpoints", {"url": "https://hooks.example.com/"})
    (old,) = bench.settings.sealing_keys()
    monkeypatch.setenv("EGRPO_DATABASE_URL", bench.settings.database_url)
    assert main(["new-secret-key"]) == 0
    new = capsys.readouterr().out.strip()
    monkeypatch.setenv("EGRPO_SECRET_KEYS", new)
    assert main(["rekey"]) == 1
    assert "none of the keys opens the value of sec_" in capsys.readouterr().err
    monkeypatch.setenv("EGRPO_SECRET_KEYS", f"{new},{old}")
    assert main(["rekey"]) == 0
    assert capsys.readouterr().out == "2\n"
    monkeypatch.setenv("EGRPO_SECRET_KEYS", new)
    assert main(["rekey"]) == 0


def test_a_service_without_a_key_says_so(settings: Settings) -> None:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        answer = Bench(client, settings).post("/v1/secrets", {"name": "hub", "value": VALUE})
    assert assert_problem(answer, 503, "secrets_not_configured")["retryable"] is False
