"""Errors that no endpoint raises by itself, and what goes with every answer."""

from __future__ import annotations

import pytest
from api_bench import Bench, assert_problem

from egrpo import catalogue
from jobs.store import ObjectStore


def test_no_such_route(bench: Bench) -> None:
    body = assert_problem(bench.client.get("/v2/jobs"), 404, "not_found")
    assert body["instance"] == "/v2/jobs"


def test_wrong_method_names_the_right_one(bench: Bench) -> None:
    response = bench.client.delete("/v1/jobs")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"]


def test_unknown_ids_are_not_found(bench: Bench) -> None:
    for path in ("/v1/jobs/job_nope", "/v1/jobs/job_01jdczzzzzzzzzzzzzzzzzzzzz", "/v1/jobs/%00", "/v1/jobs/a%2Fb"):
        assert_problem(bench.get(path), 404, "not_found")
    job = bench.submit()["id"]
    for path in ("samples/%00/image", "checkpoints/%00/files/a", "artifacts/%00", "artifacts/../../x", "artifacts/é"):
        assert_problem(bench.get(f"/v1/jobs/{job}/{path}"), 404, "not_found")
    for query in ("jobs?name=%00", f"jobs/{job}/metrics?names=%00", f"jobs/{job}/samples?kind=a%00"):
        assert_problem(bench.client.get(f"/v1/{query}", headers=bench.auth()), 400, "bad_request")


def test_unknown_query_parameters_are_errors_everywhere(bench: Bench) -> None:
    job = bench.submit()["id"]
    paths = ("models", "rewards", f"jobs/{job}", *(f"jobs/{job}/{part}" for part in PARTS))
    for path in paths:
        body = assert_problem(bench.get(f"/v1/{path}", surprise="1"), 422, "invalid_request")
        assert body["errors"] == [
            {"parameter": "surprise", "code": "unknown_parameter", "detail": "there is no such parameter"}
        ]


PARTS = ("events", "metrics", "samples", "checkpoints", "artifacts")


def test_request_ids_are_taken_over_or_made(bench: Bench) -> None:
    assert bench.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for unusable in ("", "a b", "x" * 129, "a\u00fc"):
        made = bench.client.get("/healthz", headers={b"X-Request-Id": unusable.encode()}).headers["x-request-id"]
        assert made.startswith("req_")


def test_what_nobody_foresaw_is_a_500_without_details(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(ObjectStore, "get", broken)
    bench.submit()
    claim = bench.claim()
    ids = bench.finish_files(claim)
    response = bench.get(f"/v1/jobs/{claim.job_id}/samples/{ids['sample']}/image")
    body = assert_problem(response, 500, "internal")
    assert "secret" not in response.text
    assert body["request_id"] in caplog.text
    assert bench.get("/healthz").status_code == 200


def test_an_object_that_the_store_lost_is_our_fault(bench: Bench) -> None:
    bench.submit()
    claim = bench.claim()
    bench.finish_files(claim)
    bench.services.store.delete(f"projects/{claim.project_id}/jobs/{claim.job_id}/1/artifacts/report.json")
    response = bench.get(f"/v1/jobs/{claim.job_id}/artifacts/report.json")
    assert_problem(response, 500, "object_missing")
    assert claim.project_id not in response.text


def test_catalogue(bench: Bench) -> None:
    models = bench.get("/v1/models").json()
    by_id = {model["id"]: model for model in models["data"]}
    assert by_id.keys() == catalogue.MODELS.keys()
    assert by_id["flux-1-dev"]["gated"] is True
    assert by_id["flux-1-dev"]["licence"] == "FLUX.1 [dev] Non-Commercial License"
    rewards = bench.get("/v1/rewards", limit=200).json()
    shapes = next(reward for reward in rewards["data"] if reward["type"] == "shapes")
    assert shapes["range"] == [0.0, 1.0]
    assert (rewards["has_more"], rewards["next_cursor"]) == (False, None)
    assert bench.get("/v1/rewards/shapes").json() == shapes
    assert bench.get("/v1/models/sd3.5-medium").json() == by_id["sd3.5-medium"]
    for path, one_of_them in (("/v1/models/x", "flux-1-dev"), ("/v1/rewards/x", "diversity")):
        assert one_of_them in assert_problem(bench.get(path), 404, "not_found")["detail"]
