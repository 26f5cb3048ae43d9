"""What the jobs of a project have made, across jobs."""

from __future__ import annotations

from typing import Any

import pytest
from api_bench import Bench, assert_problem
from sqlalchemy import update

from jobs import checkpoints, lifecycle
from jobs.states import Status
from jobs.tables import Checkpoint, Job

PATH = "pytorch_lora_weights.safetensors"


def made(bench: Bench, **spec: Any) -> str:
    """Runs a job to its success and returns its adapter's id."""
    bench.submit(**spec)
    claim = bench.claim()
    ids = bench.finish_files(claim)
    with bench.transaction() as session:
        lifecycle.transition(session, lifecycle.lock(session, claim.job_id), Status.SUCCEEDED, phase="done")
    return ids["checkpoint"]


def listed(bench: Bench, **query: Any) -> list[str]:
    response = bench.get("/v1/adapters", **query)
    assert response.status_code == 200, response.text
    return [adapter["id"] for adapter in response.json()["data"]]


@pytest.fixture
def adapter(bench: Bench) -> str:
    return made(bench, metadata={"ticket": "ML-88"})


def delete(bench: Bench, adapter: str, key: str | None = None) -> Any:
    return bench.client.delete(f"/v1/adapters/{adapter}", headers=bench.auth(key))


def test_an_adapter_says_what_it_is_of_and_where_its_files_are(bench: Bench, adapter: str) -> None:
    body = bench.get(f"/v1/adapters/{adapter}").json()
    assert (body["name"], body["base_model"], body["metadata"]) == ("posters", "tiny-flux-shapes", {"ticket": "ML-88"})
    assert (body["step"], body["eval_reward"], body["formats"]) == (120, 0.6, ["diffusers"])
    assert bench.get("/v1/adapters").json()["data"] == [body]
    (file,) = body["files"]
    assert (file["path"], file["format"], file["size_bytes"]) == (PATH, "diffusers", body["size_bytes"])
    whole = bench.get(file["url"])
    part = bench.get(file["url"], headers={"Range": "bytes=10-19", "If-Range": whole.headers["etag"]})
    assert whole.headers["etag"] == f'"sha256:{file["sha256"]}"'
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert bench.get(file["url"], redirect=True).status_code == 302
    assert_problem(bench.get(f"/v1/adapters/{adapter}/files/other"), 404, "not_found")


def test_they_are_listed_across_jobs_and_filtered(bench: Bench, adapter: str) -> None:
    newer = made(bench, name="cards")
    with bench.transaction() as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == newer).values(format="diffusers,peft"))
        session.execute(update(Job).where(Job.name == "cards").values(base_model="flux-1-dev"))
    assert listed(bench) == [newer, adapter]
    assert (
        listed(bench, format="peft") == listed(bench, name="cards") == listed(bench, base_model="flux-1-dev") == [newer]
    )
    assert listed(bench, format="comfyui") == []
    first = bench.get("/v1/adapters", limit=1).json()
    assert (first["has_more"], listed(bench, cursor=first["next_cursor"])) == (True, [adapter])
    assert_problem(bench.get("/v1/adapters", format="onnx"), 422, "invalid_request")


def test_only_the_result_of_a_success_is_one(bench: Bench, adapter: str) -> None:
    bench.submit()
    claim = bench.claim()
    unfinished = bench.finish_files(claim)["checkpoint"]
    assert listed(bench) == [adapter]
    assert_problem(bench.get(f"/v1/adapters/{unfinished}"), 404, "not_found")
    with bench.transaction() as session:  # Its attempt was lost after the export; the next one exports again.
        session.execute(update(Job).where(Job.id == claim.job_id).values(epoch=claim.epoch + 1))
        second = checkpoints.add(
            session, claim.job_id, claim.epoch + 1, step=120, kind="adapter", object_prefix="x", files=[],
            spec_digest=claim.spec_digest,
        )  # fmt: skip
        lifecycle.transition(session, lifecycle.lock(session, claim.job_id), Status.SUCCEEDED, phase="done")
    assert listed(bench) == [second, adapter]


def test_a_deleted_one_is_gone_and_a_pinned_one_stays(bench: Bench, adapter: str) -> None:
    job = bench.get(f"/v1/adapters/{adapter}").json()["job_id"]
    checkpoint = f"/v1/jobs/{job}/checkpoints/{adapter}"
    bench.post(f"{checkpoint}/pin")
    assert assert_problem(delete(bench, adapter), 409, "checkpoint_needed")["needed_for"] == "pin"
    bench.post(f"{checkpoint}/unpin")
    assert delete(bench, adapter).status_code == 204
    assert_problem(delete(bench, adapter), 404, "not_found")
    assert_problem(bench.get(checkpoint), 404, "not_found")
    assert listed(bench) == []
    assert bench.get(f"/v1/jobs/{job}").json()["status"] == "succeeded"


def test_another_project_sees_and_deletes_none(bench: Bench, adapter: str) -> None:
    assert bench.get("/v1/adapters", key=bench.other_key).json()["data"] == []
    for path in ("", f"/files/{PATH}"):
        assert_problem(bench.get(f"/v1/adapters/{adapter}{path}", key=bench.other_key), 404, "not_found")
    assert_problem(delete(bench, adapter, bench.other_key), 404, "not_found")
    assert listed(bench) == [adapter]
