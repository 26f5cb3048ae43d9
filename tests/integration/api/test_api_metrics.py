"""Metrics: who may overwrite what, formats, thinning, pages."""

from __future__ import annotations

import csv
import io
import json

import pytest
from api_bench import Bench, assert_problem

from api.metrics import service
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
    assert [r["created_at"] for r in csv.DictReader(io.StringIO(as_csv.text))] == [r["created_at"] for r in lines]
    assert_problem(bench.get(f"/v1/jobs/{claim.job_id}/metrics", format="xml"), 422, "invalid_request")


def test_a_text_has_every_row_and_no_pages(bench: Bench, claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_ROWS_AT_ONCE", 700)
    write(bench, claim, {(step, "long"): float(step) for step in range(3000)})
    path = f"/v1/jobs/{claim.job_id}/metrics"
    found = [json.loads(line) for line in bench.get(path, format="ndjson", names="long").text.splitlines()]
    assert [(row["step"], row["value"]) for row in found] == [(step, float(step)) for step in range(3000)]
    thinned = bench.get(path, format="csv", names="long", max_points=10).text.splitlines()
    assert len(thinned) == 1 + 8, "the ends of a line are its lowest and its highest, too"
    assert bench.get(path, format="csv", from_step=3000).text == "step,name,value,created_at\n"
    refused = assert_problem(bench.get(path, format="csv", limit=7, cursor="am9i"), 422, "invalid_request")
    assert [error["parameter"] for error in refused["errors"]] == ["limit", "cursor"]
    assert_problem(bench.get(path, key=bench.other_key, format="csv"), 404, "not_found")


@pytest.mark.parametrize("max_points", [2, 3, 6, 100])
def test_thinning_keeps_the_ends_and_every_spike(bench: Bench, claim: Claim, max_points: int) -> None:
    spikes = {50: 9.0, 51: -9.0, 201: 7.0, 398: -8.0}
    write(bench, claim, {(step, "long"): spikes.get(step, step / 1000) for step in range(400)})
    write(bench, claim, {(step, "rare"): 1.0 for step in (7, 390)})
    data = rows(bench, claim, names="long,rare", max_points=max_points, from_step=1, to_step=399)
    kept = {step: value for step, name, value in data if name == "long"}
    assert (min(kept), max(kept)) == (1, 399)
    assert len(kept) <= max_points
    # Up to three points there is room for the ends alone; of two stretches the last holds 201 and 398.
    assert kept.items() >= {step: value for step, value in spikes.items() if max_points > 3}.items()
    assert [step for step, name, _ in data if name == "rare"] == [7, 390], "it is not long"
    assert len(kept) == len({(step, name) for step, name, _ in data}) - 2


def test_pages_of_a_thinned_run_that_goes_on_are_of_one_thinning(bench: Bench, claim: Claim) -> None:
    write(bench, claim, {(step, "long"): float(step % 7) for step in range(300)})
    whole = rows(bench, claim, max_points=20)
    path = f"/v1/jobs/{claim.job_id}/metrics"
    seen: list[object] = []
    cursor: dict[str, str] = {}
    while not seen or cursor:
        page = bench.get(path, limit=9, max_points=20, **cursor).json()
        seen += [(row["step"], row["name"], row["value"]) for row in page["data"]]
        cursor = {"cursor": page["next_cursor"]} if page["has_more"] else {}
        write(bench, claim, {(300 + len(seen), "long"): 100.0})
    assert seen == whole


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
