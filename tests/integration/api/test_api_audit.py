"""The audit log: every change and every download, in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from api_bench import SPEC, Bench, assert_problem
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import update

from api.audit import DOWNLOADS, WITHOUT_EFFECT
from api.dependencies import session_of
from api.main import create_app
from jobs import api_keys, audit
from jobs.sealing import new_key
from jobs.settings import Settings
from jobs.tables import APIKey, AuditEvent, Secret


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with_key = settings.model_copy(update={"secret_keys": SecretStr(new_key())})
    with TestClient(create_app(with_key), raise_server_exceptions=False) as client:
        yield Bench(client, with_key)


def events(bench: Bench, **params: Any) -> list[dict[str, Any]]:
    response = bench.get("/v1/audit-events", **params)
    assert response.status_code == 200, response.text
    return list(response.json()["data"])


def test_who_did_what_to_what(bench: Bench) -> None:
    job = bench.submit()["id"]
    url = f"/v1/jobs/{job}"
    headers = {**bench.auth(), "X-Request-Id": "mine-1"}
    assert bench.client.patch(url, json={"name": "new"}, headers=headers).status_code == 200
    bench.post(f"{url}/cancel")
    cancelled, renamed, created = events(bench)
    assert [event["action"] for event in (created, renamed, cancelled)] == ["createJob", "updateJob", "cancelJob"]
    assert {event["target_id"] for event in (created, renamed, cancelled)} == {job}
    assert (created["path"], cancelled["path"]) == ("/v1/jobs", f"{url}/cancel")
    assert (renamed["request_id"], renamed["address"]) == ("mine-1", "testclient")
    with bench.transaction() as session:
        assert session.get_one(APIKey, created["key_id"]).hint == bench.key[:10]
    assert created["digest_before"] is None
    assert created["digest_after"] == renamed["digest_before"] != renamed["digest_after"]
    assert renamed["digest_after"] == cancelled["digest_before"] != cancelled["digest_after"]
    assert all(len(event["digest_after"]) == 64 for event in (created, renamed, cancelled))


def test_what_did_nothing_is_not_told(bench: Bench) -> None:
    job = bench.post("/v1/jobs", SPEC, Idempotency_Key="k").json()["id"]
    assert bench.post("/v1/jobs", SPEC, Idempotency_Key="k").headers["idempotency-replayed"] == "true"
    bench.post("/v1/jobs/validate", SPEC)
    bench.post("/v1/jobs", {"name": "wrong"})
    bench.post(f"/v1/jobs/{job}/resume")
    bench.get(f"/v1/jobs/{job}")
    assert [event["action"] for event in events(bench)] == ["createJob"]


def test_downloads_and_keys(bench: Bench) -> None:
    bench.submit()
    claim = bench.claim()
    ids = bench.finish_files(claim)
    paths = (f"samples/{ids['sample']}/image", "artifacts/report.json")
    for path in paths:
        assert bench.get(f"/v1/jobs/{claim.job_id}/{path}").status_code == 200
    assert bench.get(f"/v1/jobs/{claim.job_id}/artifacts/none.json").status_code == 404
    issued = bench.post("/v1/api-keys", {"name": "a", "scopes": ["audit:read"]}).json()
    assert bench.delete(f"/v1/api-keys/{issued['id']}").status_code == 204
    revoked, made, report, image, _ = events(bench)
    assert (image["action"], image["target_id"]) == ("getSampleImage", ids["sample"])
    assert (report["action"], report["target_id"]) == ("getArtifact", claim.job_id)
    assert report["path"].endswith("/artifacts/report.json")
    assert (made["action"], revoked["action"]) == ("createApiKey", "revokeApiKey")
    assert made["target_id"] == revoked["target_id"] == issued["id"]
    assert made["digest_after"] == revoked["digest_before"] != revoked["digest_after"]
    assert issued["key"] not in bench.get("/v1/audit-events").text


def test_whatever_is_made_has_a_digest(bench: Bench) -> None:
    with bench.transaction() as session:
        admin = api_keys.create(session, bench.project, "admin", ["*", "admin"])
    bodies: dict[str, dict[str, Any]] = {
        "jobs": SPEC,
        "datasets": {"name": "a", "splits": {"train": ["a red circle"]}},
        "secrets": {"name": "a", "value": "correct horse"},
        "webhook-endpoints": {"url": "https://hooks.example.com/egrpo"},
        "api-keys": {"name": "a", "scopes": ["jobs:read"]},
        "projects": {"name": "a"},
    }
    made = {}
    for path, body in bodies.items():
        response = bench.post(f"/v1/{path}", body, key=admin)
        assert response.status_code == 201, response.text
        made[response.json()["id"]] = path
    told = {event["target_id"]: event for event in events(bench)}
    for id, path in made.items():
        assert told[id]["digest_before"] is None, path
        assert len(told[id]["digest_after"] or "") == 64, path


def test_the_digest_of_a_secret_tells_of_its_replacement_and_not_of_its_value(bench: Bench) -> None:
    secret = bench.post("/v1/secrets", {"name": "a", "value": "correct horse"}).json()
    url = f"/v1/secrets/{secret['id']}"
    with bench.transaction() as session:
        session.execute(update(Secret).values(sealed="other"))
    assert bench.client.put(url, json={"value": "battery staple"}, headers=bench.auth()).status_code == 200
    assert bench.delete(url).status_code == 204
    deleted, replaced, created = events(bench)
    assert created["digest_after"] == replaced["digest_before"] != replaced["digest_after"]
    assert (replaced["digest_after"], deleted["digest_after"]) == (deleted["digest_before"], None)


def test_it_is_of_the_project_to_which_it_was_done(bench: Bench) -> None:
    bench.submit()
    assert events(bench, key=bench.other_key) == []
    with bench.transaction() as session:
        elsewhere = api_keys.project_named(session, "operators")
        admin = api_keys.create(session, elsewhere, "admin", ["*", "admin"])
    url = f"/v1/projects/{bench.project}"
    assert bench.client.patch(url, json={"limits": {}}, headers=bench.auth(admin)).status_code == 200
    body = {"name": "a", "scopes": ["jobs:read"]}
    bench.post(f"/v1/api-keys?project_id={bench.project}", body, key=admin)
    assert [event["action"] for event in events(bench)] == ["createApiKey", "updateProject", "createJob"]
    assert events(bench, key=admin) == []
    assert len(events(bench, key=admin, project_id=bench.project)) == 3
    refused = bench.get("/v1/audit-events", key=bench.other_key, project_id=bench.project)
    assert_problem(refused, 403, "insufficient_scope")


def test_filters_and_cursor(bench: Bench) -> None:
    jobs = [bench.submit()["id"] for _ in range(3)]
    bench.post(f"/v1/jobs/{jobs[0]}/pause")
    first = bench.get("/v1/audit-events", action="createJob", limit=2).json()
    rest = bench.get("/v1/audit-events", action="createJob", limit=2, cursor=first["next_cursor"]).json()
    assert [event["target_id"] for event in first["data"] + rest["data"]] == jobs[::-1]
    assert [event["action"] for event in events(bench, target_id=jobs[0])] == ["pauseJob", "createJob"]
    key_id = first["data"][0]["key_id"]
    assert (len(events(bench, key_id=key_id)), events(bench, key_id="key_other")) == (4, [])
    with bench.transaction() as session:
        old = update(AuditEvent).where(AuditEvent.target_id == jobs[1]).values(created_at="2020-01-01T00:00:00Z")
        session.execute(old)
    assert [e["target_id"] for e in events(bench, created_before="2021-01-01T00:00:00Z")] == [jobs[1]]
    assert len(events(bench, created_after="2021-01-01T00:00:00Z")) == 3
    assert_problem(bench.get("/v1/audit-events", created_after="yesterday"), 422, "invalid_request")
    with bench.transaction() as session:
        assert audit.forget_old(session, timedelta(days=400)) == 1
    assert len(events(bench)) == 3


def test_neither_is_there_without_the_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the log cannot be written")

    monkeypatch.setattr(audit, "write", broken)
    assert_problem(bench.post("/v1/jobs", SPEC), 500, "internal")
    assert bench.get("/v1/jobs").json()["data"] == []


def test_no_route_that_changes_something_or_sends_a_file_goes_around_it(bench: Bench) -> None:
    document = bench.client.get("/openapi.json").json()
    changing = {
        operation["operationId"]
        for methods in document["paths"].values()
        for method, operation in methods.items()
        if method != "get"
    }
    sending = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
        for content in operation["responses"].get("200", {}).get("content", {}).values()
        if content.get("schema", {}).get("format") == "binary"
    }
    assert sending == DOWNLOADS
    assert changing >= WITHOUT_EFFECT
    for operation in (changing | sending) - WITHOUT_EFFECT:
        assert session_of in dependencies(bench, operation), f"{operation} does not use TheSession"


def dependencies(bench: Bench, operation_id: str) -> list[Any]:
    """Returns what the endpoint of an operation depends on."""
    found: list[Any] = []
    routes = bench.client.app.routes  # type: ignore[attr-defined]
    todo = [route.dependant for route in flat(routes) if route.operation_id == operation_id]
    assert len(todo) == 1, operation_id
    while todo:
        dependant = todo.pop()
        found.append(dependant.call)
        todo.extend(dependant.dependencies)
    return found


def flat(routes: list[Any]) -> list[APIRoute]:
    """Returns the routes, those of included routers too."""
    found: list[APIRoute] = []
    for route in routes:
        if isinstance(route, APIRoute):
            found.append(route)
        elif (router := getattr(route, "original_router", None)) is not None:
            found.extend(flat(router.routes))
    return found
