"""Finding a job's samples, and their images through the API and by link."""

from __future__ import annotations

from typing import Any

import httpx
from api_bench import PNG, Bench, assert_problem

from jobs import samples


def drawn(bench: Bench) -> str:
    """A job with three evaluations of two prompts, and the best and worst image of each."""
    bench.submit()
    claim = bench.claim()
    key = f"projects/{claim.project_id}/jobs/{claim.job_id}/1/x.png"
    image = bench.services.store.put_bytes(key, PNG, content_type="image/png")
    with bench.transaction() as session:
        for step in (0, 25, 50):
            for kind, prompt_index in (("evaluation", 0), ("evaluation", 1), ("best", 1), ("worst", 0)):
                samples.put(
                    session, claim.job_id, claim.epoch, f"samples/{step}/{kind}-{prompt_index}.png",
                    step=step, kind=kind, prompt=f"p{prompt_index}", prompt_index=prompt_index, seed=prompt_index,
                    rewards={}, passed=None, object_key=image.key, size_bytes=image.size_bytes, sha256=image.sha256,
                )  # fmt: skip
    return claim.job_id


def test_samples_are_found_by_prompt_step_and_kind(bench: Bench) -> None:
    job = drawn(bench)

    def found(**params: Any) -> list[tuple[int, str, int]]:
        rows = bench.get(f"/v1/jobs/{job}/samples", **params).json()["data"]
        return [(row["step"], row["kind"], row["prompt_index"]) for row in rows]

    assert found(kind="evaluation", prompt_index=1) == [(step, "evaluation", 1) for step in (0, 25, 50)]
    assert found(step=25) == [(25, "evaluation", 0), (25, "evaluation", 1), (25, "best", 1), (25, "worst", 0)]
    assert found(kind="best", from_step=25) == [(25, "best", 1), (50, "best", 1)]
    assert found(kind="worst", from_step=1, to_step=25) == [(25, "worst", 0)]
    assert found(prompt_index=2) == []
    first = bench.get(f"/v1/jobs/{job}/samples", prompt_index=0, limit=4).json()
    assert first["has_more"]
    assert found(prompt_index=0, cursor=first["next_cursor"]) == [(50, "evaluation", 0), (50, "worst", 0)]
    wrong = {"step": -1, "prompt_index": "first", "from_step": 2**31, "colour": "red"}
    errors = assert_problem(bench.get(f"/v1/jobs/{job}/samples", **wrong), 422, "invalid_request")["errors"]
    assert {error["parameter"] for error in errors} == set(wrong)


def test_an_image_comes_through_the_api_or_by_a_link_that_needs_no_key(bench: Bench) -> None:
    job = drawn(bench)
    sample = bench.get(f"/v1/jobs/{job}/samples", limit=1).json()["data"][0]
    assert bench.get(sample["image_url"]).content == PNG
    link = bench.get(sample["image_url"], redirect=True)
    assert (link.status_code, httpx.get(link.headers["location"]).content) == (302, PNG)
    assert httpx.get(link.headers["location"].split("?")[0]).status_code == 403
    assert_problem(bench.get(sample["image_url"], key=bench.other_key), 404, "not_found")
