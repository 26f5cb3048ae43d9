"""Metrics: who may overwrite what, formats, thinning, pages."""

from __future__ import annotations

import csv
import io
import itertools
import json

import pytest
from api_bench import Bench, assert_problem

from jobs import metrics
from jobs.leases import Claim


@pytest.fixture
def claim(bench: Bench) -> Claim:
    bench.submit()
    claim = bench.claim()
    write(bench, claim, {(step, name): step + len(name) / 10 for step in range(10) for name in ("loss", "reward")})
    return claim


def write(bench: Bench, claim: Claim, values: dict[tuple[int, str], float], *, epoch: int | None = None) -> None:
    with bench.transaction() as session:
        metrics.upsert(session, claim.job_id, epoch or claim.epoch, values)


def rows(bench: Bench, claim: Claim, **params: object) -> list[tuple[int, str, float]]:
    data = bench.get(f"/v1/jobs/{claim.job_id}/metrics", **params).json()["data"]
    return [(row["step"], row["name"], row["value"]) for row in data]


def test_rows_in_order_with_filters(bench: Bench, claim: Claim) -> None:
    assert rows(bench, claim)[:3] == [(0, "loss", 0.4), (0, "reward", 0.6), (1, "loss", 1.4)]
    assert rows(bench, claim, names="loss", from_step=3, to_step=4) == [(3, "loss", 3.4), (4, "loss", 4.4)]
    assert len(rows(bench, claim, names="loss,reward")) == len(rows(bench, claim, names=["loss", "reward"])) == 20


def test_a_replayed_step_overwrites_and_an_older_epoch_cannot(bench: Bench, claim: Claim) -> None:
    write(bench, claim, {(3, "loss"): -1.0}, epoch=2)
    write(bench, claim, {(3, "loss"): -2.0}, epoch=1)
    assert rows(bench, claim, names="loss", from_step=3, to_step=3) == [(3, "loss", -1.0)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_by_name(bench: Bench, claim: Claim, value: float) -> None:
    with pytest.raises(ValueError, match="grad_norm at step 5"):
        write(bench, claim, {(5, "grad_norm"): value})


def test_text_formats_say_the_same(bench: Bench, claim: Claim) -> None:
    as_csv = bench.get(f"/v1/jobs/{claim.job_id}/metrics", format="csv")
    as_ndjson = bench.get(f"/v1/jobs/{claim.job_id}/metrics", format="ndjson")
    assert as_csv.headers["content-type"].startswith("text/csv")
    assert as_ndjson.headers["content-type"] == "application/x-ndjson"
    from_csv = [(int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(io.StringIO(as_csv.text))]
    lines = [json.loads(line) for line in as_ndjson.text.splitlines()]
    assert from_csv == [(r["step"], r["name"], r["value"]) for r in lines] == rows(bench, claim)
    assert_problem(bench.get(f"/v1/jobs/{claim.job_id}/metrics", format="xml"), 422, "invalid_request")


@pytest.mark.parametrize("max_points", [2, 3, 7, 100])
def test_thinning_keeps_both_ends_and_spreads_evenly(bench: Bench, claim: Claim, max_points: int) -> None:
    write(bench, claim, {(step, "long"): 0.0 for step in range(101)})
    steps = [step for step, _, _ in rows(bench, claim, names="long", max_points=max_points)]
    assert (steps[0], steps[-1], len(steps)) == (0, 100, max_points)
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert max(gaps) - min(gaps) <= 1


def test_pages_give_every_row_once(bench: Bench, claim: Claim) -> None:
    seen: list[object] = []
    cursor: dict[str, str] = {}
    while True:
        page = bench.get(f"/v1/jobs/{claim.job_id}/metrics", limit=7, **cursor).json()
        seen += [(row["step"], row["name"], row["value"]) for row in page["data"]]
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == rows(bench, claim)
    assert_problem(bench.get(f"/v1/jobs/{claim.job_id}/metrics", cursor="am9i"), 422, "invalid_request")
