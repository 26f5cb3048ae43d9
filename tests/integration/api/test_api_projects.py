"""Projects and their limits: set by administrators, kept by the queue and by whoever stores something."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from api_bench import SPEC, Bench, assert_problem
from sqlalchemy import update

from jobs import leases, lifecycle
from jobs.states import Status
from jobs.tables import Attempt, StorageUse


@pytest.fixture
def admin(bench: Bench) -> str:
    return bench.key_with("admin", "projects:read", "keys:write", "jobs:write")


def patch(bench: Bench, key: str, body: Any, **headers: str) -> Any:
    url = f"/v1/projects/{bench.project}"
    return bench.client.patch(url, json=body, headers={**bench.auth(key), **headers})


def measure_again(bench: Bench) -> None:
    """A minute goes by."""
    with bench.transaction() as session:
        session.execute(update(StorageUse).values(measured_at=StorageUse.measured_at - timedelta(seconds=61)))


def test_an_administrator_makes_a_project_and_its_first_key(bench: Bench, admin: str) -> None:
    body = {"name": "new", "limits": {"max_concurrent_jobs": 2, "max_gpu_hours": 10}}
    response = bench.post("/v1/projects", body, key=admin, Idempotency_Key="p")
    made = response.json()
    assert response.status_code == 201, made
    assert made["limits"] == {**body["limits"], "max_storage_bytes": None}
    assert made["use"] == {"running_jobs": 0, "gpu_hours": 0, "storage_bytes": 0}
    assert bench.post("/v1/projects", body, key=admin, Idempotency_Key="p").json() == made
    (problem,) = assert_problem(bench.post("/v1/projects", body, key=admin), 422, "invalid_request")["errors"]
    assert (problem["code"], problem["pointer"]) == ("name_taken", "/name")
    url = f"/v1/api-keys?project_id={made['id']}"
    key = bench.post(url, {"name": "first", "scopes": ["jobs:write"]}, key=admin).json()["key"]
    assert bench.post("/v1/jobs", SPEC, key=key).status_code == 201
    assert bench.get(response.headers["location"], key=admin).json()["name"] == "new"


def test_others_see_their_own_project_and_change_nothing(bench: Bench, admin: str) -> None:
    mine = bench.get(f"/v1/projects/{bench.project}")
    assert mine.json()["name"] == "mine"
    assert_problem(bench.get(f"/v1/projects/{bench.project}", key=bench.other_key), 404, "not_found")
    assert [row["name"] for row in bench.get("/v1/projects", key=bench.other_key).json()["data"]] == ["other"]
    first = bench.get("/v1/projects", key=admin, limit=1).json()
    rest = bench.get("/v1/projects", key=admin, cursor=first["next_cursor"]).json()
    assert [row["name"] for row in first["data"] + rest["data"]] == ["other", "mine"]
    assert_problem(patch(bench, bench.key, {"limits": {"max_gpu_hours": 9e9}}), 403, "insufficient_scope")
    assert_problem(bench.post("/v1/projects", {"name": "x"}), 403, "insufficient_scope")
    assert bench.get(f"/v1/projects/{bench.project}").json() == mine.json()


def test_limits_are_changed_one_by_one_at_the_version_that_was_seen(bench: Bench, admin: str) -> None:
    seen = bench.get(f"/v1/projects/{bench.project}").headers["etag"]
    changed = patch(
        bench, admin, {"limits": {"max_concurrent_jobs": 3, "max_storage_bytes": 10**9}}, **{"If-Match": seen}
    )
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    late = patch(bench, admin, {"limits": {"max_gpu_hours": 1}}, **{"If-Match": seen})
    assert assert_problem(late, 412, "version_mismatch")["current_version"] == 2
    kept = patch(bench, admin, {"name": "renamed", "limits": {"max_concurrent_jobs": None}}).json()
    assert kept["limits"] == {"max_concurrent_jobs": None, "max_gpu_hours": None, "max_storage_bytes": 10**9}
    assert (kept["name"], kept["version"]) == ("renamed", 3)
    assert patch(bench, admin, {"name": "renamed"}).json()["version"] == 3, "nothing was changed"
    (taken,) = assert_problem(patch(bench, admin, {"name": "other"}), 422, "invalid_request")["errors"]
    assert taken["code"] == "name_taken"
    wrong = {
        "name": None,
        "limits": {"max_concurrent_jobs": 0, "max_gpu_hours": "9", "max_storage_bytes": 2**63, "x": 1},
    }
    problems = assert_problem(patch(bench, admin, wrong), 422, "invalid_request")["errors"]
    assert {problem["pointer"]: problem["code"] for problem in problems} == {
        "/name": "wrong_type",
        "/limits/max_concurrent_jobs": "out_of_range",
        "/limits/max_gpu_hours": "wrong_type",
        "/limits/max_storage_bytes": "out_of_range",
        "/limits/x": "unknown_field",
    }


def test_jobs_above_a_limit_wait_and_use_is_told(bench: Bench, admin: str) -> None:
    patch(bench, admin, {"limits": {"max_concurrent_jobs": 1}})
    bench.submit(), bench.submit()
    claim = bench.claim()
    with bench.transaction() as session:
        assert leases.claim(session, "worker-2", timedelta(seconds=90)) is None
        began = Attempt.started_at - timedelta(minutes=6)
        session.execute(update(Attempt).where(Attempt.id == claim.attempt_id).values(started_at=began))
    use = bench.get(f"/v1/projects/{bench.project}").json()["use"]
    assert use["running_jobs"] == 1
    assert 0 <= use["gpu_hours"] < 0.11, "less than six minutes when the month has just begun"
    patch(bench, admin, {"limits": {"max_concurrent_jobs": 2}})
    bench.claim()
    assert bench.get(f"/v1/projects/{bench.project}").json()["use"]["running_jobs"] == 2


def test_a_project_whose_storage_is_used_up_stores_no_more(bench: Bench, admin: str) -> None:
    paused, failed = bench.submit()["id"], bench.submit()["id"]
    bench.post(f"/v1/jobs/{paused}/pause")
    claim = bench.claim()
    bench.finish_files(claim)
    with bench.transaction() as session:
        lifecycle.transition(session, lifecycle.lock(session, failed), Status.FAILED, phase="done")
    url = f"/v1/projects/{bench.project}"
    used = bench.get(url).json()["use"]["storage_bytes"]
    assert used > 300_000
    patch(bench, admin, {"limits": {"max_storage_bytes": used + 100}})
    prompts = {"name": "d", "splits": {"train": ["x" * 101]}}
    body = assert_problem(bench.post("/v1/datasets", prompts), 403, "quota_exceeded")
    assert (body["limit"], body["allowed"], body["used"]) == ("max_storage_bytes", used + 100, used)
    assert bench.post("/v1/datasets", {"name": "d", "splits": {"train": ["x" * 100]}}).status_code == 201
    assert bench.post("/v1/jobs", SPEC).status_code == 201, "measured in this minute"
    measure_again(bench)
    for path, sent in (("", SPEC), (f"/{paused}/resume", None), (f"/{failed}/retry", None)):
        assert_problem(bench.post(f"/v1/jobs{path}", sent), 403, "quota_exceeded")
    assert bench.get(f"/v1/jobs/{paused}").json()["status"] == "paused"
    patch(bench, admin, {"limits": {"max_storage_bytes": None}})
    assert bench.post(f"/v1/jobs/{paused}/resume").status_code == 200
