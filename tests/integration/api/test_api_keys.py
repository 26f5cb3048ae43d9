"""API keys by the API: shown once, no more than their scopes, until they are revoked or their time is over."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from api_bench import SPEC, Bench, assert_problem
from sqlalchemy import func, select, update

from jobs import api_keys
from jobs.scopes import SCOPES
from jobs.tables import APIKey, IdempotencyKey


def issue(bench: Bench, *scopes: str, key: str | None = None, **more: Any) -> dict[str, Any]:
    response = bench.post("/v1/api-keys", {"name": "ci", "scopes": list(scopes), **more}, key=key)
    assert response.status_code == 201, response.text
    return dict(response.json())


def test_a_key_is_shown_once_and_works_until_it_is_revoked(bench: Bench) -> None:
    issued = issue(bench, "jobs:read", "keys:read")
    key = issued["key"]
    assert api_keys.is_well_formed(key)
    assert bench.get("/v1/jobs", key=key).status_code == 200
    url = f"/v1/api-keys/{issued['id']}"
    shown = bench.get(url, key=key)
    assert "key" not in shown.json()
    assert key not in shown.text + bench.get("/v1/api-keys").text
    assert (shown.json()["scopes"], shown.json()["hint"]) == (["jobs:read", "keys:read"], key[:10])
    assert issued["last_used_at"] is None
    assert shown.json()["last_used_at"] is not None
    assert bench.delete(url).status_code == bench.delete(url).status_code == 204, "once more changes nothing"
    assert_problem(bench.get("/v1/jobs", key=key), 401, "unauthorized")
    assert bench.get(url).json()["revoked_at"] is not None


def test_every_route_refuses_a_key_that_has_every_scope_but_its_own(bench: Bench) -> None:
    document = bench.client.get("/openapi.json").json()
    keys: dict[str, str] = {}
    called = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "security" not in operation:
                continue
            ((needed,),) = (scopes for scheme in operation["security"] for scopes in scheme.values())
            if needed not in keys:
                keys[needed] = bench.key_with(*({*SCOPES} - {needed, "*"}))
            response = bench.client.request(method, path, headers=bench.auth(keys[needed]))
            body = assert_problem(response, 403, "insufficient_scope")
            assert (body["missing_scopes"], body["retryable"]) == ([needed], False)
            assert f'error="insufficient_scope", scope="{needed}"' in response.headers["www-authenticate"]
            called += 1
    assert called >= 25


def test_a_key_does_what_its_scopes_say_and_no_more(bench: Bench) -> None:
    reader, writer = bench.key_with("jobs:read"), bench.key_with("jobs:write")
    assert_problem(bench.post("/v1/jobs", SPEC, key=reader), 403, "insufficient_scope")
    job = bench.post("/v1/jobs", SPEC, key=writer).json()["id"]
    assert bench.get(f"/v1/jobs/{job}", key=reader).status_code == 200
    assert_problem(bench.get(f"/v1/jobs/{job}", key=writer), 403, "insufficient_scope")
    assert bench.post("/v1/jobs/validate", SPEC, key=reader).status_code == 200
    assert bench.get("/v1/models", key=bench.key_with("catalogue:read")).status_code == 200


def test_nobody_gives_more_than_they_have(bench: Bench) -> None:
    narrow = bench.key_with("keys:read", "keys:write")
    for wanted in (["*"], ["admin"], ["jobs:read", "keys:read"]):
        response = bench.post("/v1/api-keys", {"name": "up", "scopes": wanted}, key=narrow)
        body = assert_problem(response, 403, "insufficient_scope")
        assert body["missing_scopes"] == [scope for scope in wanted if scope != "keys:read"]
    response = bench.post("/v1/api-keys", {"name": "up", "scopes": ["admin"]})
    assert_problem(response, 403, "insufficient_scope")
    strong = issue(bench, "*")
    assert_problem(bench.post(f"/v1/api-keys/{strong['id']}/rotate", key=narrow), 403, "insufficient_scope")
    assert issue(bench, "keys:write", key=narrow)["scopes"] == ["keys:write"]


def test_rotation_at_once_and_with_an_overlap(bench: Bench) -> None:
    first = issue(bench, "jobs:read", expires_at=(datetime.now(UTC) + timedelta(days=30)).isoformat())
    second = bench.post(f"/v1/api-keys/{first['id']}/rotate?overlap_seconds=3600").json()
    same = ("name", "scopes", "expires_at", "project_id")
    assert [first[name] for name in same] == [second[name] for name in same]
    for key in (first["key"], second["key"]):
        assert bench.get("/v1/jobs", key=key).status_code == 200
    left = datetime.fromisoformat(bench.get(f"/v1/api-keys/{first['id']}").json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=58) < left < timedelta(minutes=62)
    third = bench.post(f"/v1/api-keys/{second['id']}/rotate").json()
    assert_problem(bench.get("/v1/jobs", key=second["key"]), 401, "unauthorized")
    assert bench.get("/v1/jobs", key=third["key"]).status_code == 200
    again = bench.post(f"/v1/api-keys/{second['id']}/rotate")
    assert assert_problem(again, 409, "invalid_state")["current_status"] == "revoked"
    with bench.transaction() as session:
        session.execute(update(APIKey).where(APIKey.id == third["id"]).values(expires_at=func.now()))
    again = bench.post(f"/v1/api-keys/{third['id']}/rotate")
    assert assert_problem(again, 409, "invalid_state")["current_status"] == "expired"


def test_a_replayed_answer_is_without_the_key_which_is_stored_nowhere(bench: Bench) -> None:
    body = {"name": "ci", "scopes": ["jobs:read"]}
    first = bench.post("/v1/api-keys", body, Idempotency_Key="k1")
    again = bench.post("/v1/api-keys", body, Idempotency_Key="k1")
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == {**first.json(), "key": None}
    rotated = bench.post(f"/v1/api-keys/{first.json()['id']}/rotate", Idempotency_Key="k2")
    assert bench.post(f"/v1/api-keys/{first.json()['id']}/rotate", Idempotency_Key="k2").json()["key"] is None
    with bench.transaction() as session:
        stored = json.dumps([row.response for row in session.scalars(select(IdempotencyKey))])
    for response in (first, rotated):
        assert response.json()["id"] in stored
        assert response.json()["key"] not in stored


WRONG: list[tuple[str, Any, str]] = [
    ("expires_at", "2020-01-01T00:00:00Z", "out_of_range"),
    ("expires_at", "9999-12-31T23:59:59-14:00", "wrong_format"),
    ("expires_at", "2090-01-01T00:00:00Z", "out_of_range"),
    ("expires_at", "2090-01-01T00:00:00", "wrong_format"),
    ("expires_at", "tomorrow", "wrong_format"),
    ("expires_at", 4102444800, "wrong_type"),
    ("scopes", [], "too_short"),
    ("scopes", ["jobs:all"], "not_allowed"),
    ("scopes", "jobs:read", "wrong_type"),
    ("name", "", "too_short"),
    ("name", "a\0b", "wrong_format"),
    ("key", "ega_mine", "unknown_field"),
]


def test_what_no_key_can_be(bench: Bench) -> None:
    for field, value, code in WRONG:
        response = bench.post("/v1/api-keys", {"name": "ci", "scopes": ["jobs:read"], field: value})
        (problem,) = assert_problem(response, 422, "invalid_request")["errors"]
        assert problem["pointer"].startswith(f"/{field}")
        assert problem["code"] == code, (field, value)
        if code == "not_allowed":
            assert problem["allowed"] == list(SCOPES)


def test_keys_of_another_project_are_for_administrators(bench: Bench) -> None:
    mine = issue(bench, "jobs:read")
    for method in ("GET", "DELETE"):
        response = bench.client.request(method, f"/v1/api-keys/{mine['id']}", headers=bench.auth(bench.other_key))
        assert_problem(response, 404, "not_found")
    assert_problem(bench.post(f"/v1/api-keys/{mine['id']}/rotate", key=bench.other_key), 404, "not_found")
    assert mine["id"] not in bench.get("/v1/api-keys", key=bench.other_key).text
    refused = bench.get("/v1/api-keys", key=bench.other_key, project_id=bench.project)
    assert assert_problem(refused, 403, "insufficient_scope")["missing_scopes"] == ["admin"]
    with bench.transaction() as session:
        elsewhere = api_keys.project_named(session, "operators")
        admin = api_keys.create(session, elsewhere, "admin", ["*", "admin"])
    listed = bench.get("/v1/api-keys", key=admin, project_id=bench.project).json()["data"]
    assert mine["id"] in [row["id"] for row in listed]
    url = f"/v1/api-keys?project_id={bench.project}"
    made = bench.post(url, {"name": "first", "scopes": ["jobs:write"]}, key=admin).json()
    assert made["project_id"] == bench.project
    assert bench.get(f"/v1/api-keys/{made['id']}").status_code == 200
    assert_problem(bench.get("/v1/api-keys", key=admin, project_id="prj_nobody"), 404, "not_found")


def test_the_list_goes_on_by_cursor(bench: Bench) -> None:
    made = [issue(bench, "jobs:read")["id"] for _ in range(3)]
    first = bench.get("/v1/api-keys", limit=2).json()
    rest = bench.get("/v1/api-keys", limit=2, cursor=first["next_cursor"]).json()
    ids = [row["id"] for row in first["data"] + rest["data"]]
    assert ids[:3] == made[::-1]
    assert (len(ids), rest["has_more"]) == (4, False)
