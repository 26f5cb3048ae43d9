"""The dry run of a job: what it says, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
from api_bench import SPEC, Bench, assert_problem
from sqlalchemy import func, select, update

from jobs import leases, metrics, workers
from jobs.queue import Pool
from jobs.tables import Base, GPUTime, Job, Project, StorageUse

PATH = "/v1/jobs/validate"
METHOD = {"shift": 3, "sampling_steps": 16, "eta": 0.7, "group_size": 12}


def dry_run(bench: Bench, **changes: Any) -> dict[str, Any]:
    response = bench.post(PATH, {**SPEC, **changes})
    assert response.status_code == 200, response.text
    return dict(response.json())


def num_rows(bench: Bench) -> dict[str, int]:
    with bench.transaction() as session:
        return {
            table.name: session.scalars(select(func.count()).select_from(table)).one()
            for table in Base.metadata.sorted_tables
        }


def test_dry_run_shows_spec_plan_and_work_and_writes_nothing(bench: Bench) -> None:
    before = num_rows(bench)
    body = dry_run(bench, method=METHOD)
    assert num_rows(bench) == before
    job = bench.submit(method=METHOD)
    assert (body["spec"], body["spec_digest"]) == (job["spec"], job["spec_digest"])
    plan = body["plan"]
    assert (len(plan["sigmas"]), plan["sigmas"][0], plan["sigmas"][-1]) == (17, 1, 0)
    assert [step["start"] for step in plan["steps"]] == list(range(8))
    for step in plan["steps"]:
        assert step["merged"] == (step["length"] > 1) == (step["end"] > step["start"] + 1)
        assert step["entropy"] == pytest.approx(math.sqrt(2 * math.pi * math.e) * step["std"])
    # T + G * sum of (T - end), for each of the 8 prompts of an update.
    per_prompt = 16 + 12 * sum(16 - step["end"] for step in plan["steps"])
    evaluations = body["network_evaluations"]
    assert evaluations["per_prompt"] == {"fewest": per_prompt, "most": per_prompt}
    assert evaluations["in_all"]["most"] == per_prompt * 8 * 120
    assert (body["work"]["rollouts"], body["work"]["images_per_update"]) == (120, 8 * 12 * 8)
    assert (body["cost"], set(body["unknown"])) == (None, {"cost"})


def test_dry_run_refuses_what_creating_refuses(bench: Bench) -> None:
    wrong = {**SPEC, "colour": "red", "training": {"steps": "300"}, "method": {"eta": -1}}
    errors = assert_problem(bench.post(PATH, wrong), 422, "invalid_request")["errors"]
    assert errors == assert_problem(bench.post("/v1/jobs", wrong), 422, "invalid_request")["errors"]
    assert len(errors) == 3
    assert_problem(bench.client.post(PATH, json=SPEC), 401, "unauthorized")


def test_a_schedule_that_is_not_known_yet_is_null_with_its_reason(bench: Bench) -> None:
    body = dry_run(bench, base_model="flux-1-dev", checkpoint={"every_steps": 200}, method={"shift": None})
    assert (body["plan"], body["network_evaluations"]) == (None, None)
    assert "method.shift" in body["unknown"]["plan"]
    assert {"gated_model", "no_checkpoint_on_the_way"} <= {warning["code"] for warning in body["warnings"]}


def test_what_would_keep_a_job_from_running_is_told_before_it_is_queued(bench: Bench) -> None:
    def told(**changes: Any) -> list[tuple[str, str]]:
        return [(warning["code"], warning["pointer"]) for warning in dry_run(bench, **changes)["warnings"]]

    assert told() == [("no_worker", "/resources")]
    with bench.transaction() as session:
        workers.beat(session, "worker-1", Pool("h100", 1))
    assert told() == []
    assert told(resources={"gpus": 1, "gpu_type": "h100"}) == []
    assert told(resources={"gpus": 2}) == [("no_matching_worker", "/resources")]
    assert told(resources={"gpu_type": "l4"}) == [("no_matching_worker", "/resources")]
    with bench.transaction() as session:
        session.execute(update(Project).values(max_storage_bytes=1, max_gpu_hours=1))
        session.add(StorageUse(project_id=bench.project, size_bytes=2, measured_at=func.now()))
        today = func.date_trunc("day", func.clock_timestamp(), "UTC")
        session.add(GPUTime(project_id=bench.project, day=today, gpu_type="h100", gpu_seconds=3600))
    assert told() == [("quota_exceeded", ""), ("quota_used_up", "/resources")]
    assert_problem(bench.post("/v1/jobs", SPEC), 403, "quota_exceeded")


def test_secrets_that_are_not_there_are_told_with_everything_else(bench: Bench) -> None:
    secrets = {"HF_TOKEN": "sec_nope", "PATH": "sec_nope", "WANDB_API_KEY": 1}
    for document in ({**SPEC, "secrets": secrets, "colour": "red"}, {**SPEC, "secrets": {"HF_TOKEN": "sec_nope"}}):
        errors = assert_problem(bench.post(PATH, document), 422, "invalid_request")["errors"]
        assert ("/secrets/HF_TOKEN", "unknown_secret") in [(each["pointer"], each["code"]) for each in errors]
        assert len({each["pointer"] for each in errors}) == len(errors) == (4 if "colour" in document else 1)


def test_a_first_job_has_an_estimate_that_says_so(bench: Bench) -> None:
    """Hours of FLUX.1 by hand: 22e12 operations a pass at 512 pixels, and an H100 that makes use of 35 % of 989e12."""
    body = dry_run(bench, base_model="flux-1-dev", method=METHOD, resources={"gpu_type": "h100"})
    compute, cost, memory = body["compute"], body["cost"], body["memory"]
    assert compute["flops_per_pass"] == pytest.approx(21.5e12, rel=0.01)
    drawn = body["network_evaluations"]["in_all"]["most"] * 21.5e12
    trained = 8 * 8 * 120 * 3 * 21.5e12
    assert compute["flops"]["least"] == compute["flops"]["most"] == pytest.approx(drawn + trained, rel=0.02)
    assert (cost["basis"], cost["gpu_type"], cost["measured_on"]) == ("estimated", "h100", "")
    assert cost["gpu_hours"] == pytest.approx((drawn + trained) / (0.35 * 989.4e12) / 3600, rel=0.02)
    assert cost["seconds"] == pytest.approx(cost["gpu_hours"] * 3600)
    assert cost["seconds_per_update"] == pytest.approx(cost["seconds"] / 120)
    assert cost["gpu_hours_range"]["least"] == pytest.approx(cost["gpu_hours"] * 0.35 / 0.6)
    assert cost["gpu_hours_range"]["most"] == pytest.approx(cost["gpu_hours"] * 0.35 / 0.15)
    assert any("989.4 TFLOP/s" in line and "15% to 60%" in line for line in cost["assumptions"])
    assert (memory["basis"], memory["gpu_type"], memory["measured_on"]) == ("estimated", "h100", "")
    assert memory["held_bytes"] == 2 * (11_901_408_320 + 83_819_683)
    assert 30e9 < memory["peak_bytes"] < 40e9, "with the text encoders, which are 9.8 GB"
    assert memory["phase"] == "encoding"
    assert body["unknown"] == {}
    two = dry_run(bench, base_model="flux-1-dev", method=METHOD, resources={"gpu_type": "h100", "gpus": 2})["cost"]
    assert (two["gpu_hours"], two["seconds"]) == (cost["gpu_hours"], cost["seconds"] / 2)
    budget = dry_run(bench, base_model="flux-1-dev", method=METHOD, limits={"max_gpu_hours": 1})
    assert "over_budget" in {warning["code"] for warning in budget["warnings"]}


def test_the_estimate_is_for_what_the_job_will_run_on(bench: Bench) -> None:
    def of(**changes: Any) -> tuple[str | None, str | None, str]:
        body = dry_run(bench, **{"base_model": "flux-1-dev", "method": METHOD, **changes})
        cost = body["cost"]
        return cost and cost["gpu_type"], body["memory"]["gpu_type"], body["unknown"].get("cost", "")

    assert of() == ("h100", "h100", ""), "the reference, where nothing says what it will be"
    assert "stands for it" in dry_run(bench, base_model="flux-1-dev", method=METHOD)["cost"]["assumptions"][0]
    with bench.transaction() as session:
        workers.beat(session, "worker-1", Pool("l40s", 1))
    assert of() == ("l40s", "l40s", "")
    assert of(resources={"gpu_type": "a100-sxm4-80gb"})[0] == "a100-sxm4-80gb"
    assert of(resources={"gpus": 2})[0] == "h100", "no worker that is there could take it"
    cost, memory, reason = of(resources={"gpu_type": "mi300x"})
    assert (cost, memory) == (None, "mi300x")
    assert "has made a step yet" in reason
    assert "'mi300x'" in reason
    assert "rtx-4090" in reason
    cost, memory, reason = of(resources={"gpus": 0})
    assert (cost, memory) == (None, "cpu")
    assert "how fast a CPU is" in reason
    assert "float32" in of(training={"precision": "float32"})[2]
    assert "too small" in of(base_model="tiny-flux-shapes")[2]
    body = dry_run(bench, base_model="tiny-flux-shapes", method=METHOD, resources={"gpus": 0})
    assert (body["compute"] is None, body["cost"]) == (False, None)
    assert 0.5e9 < body["memory"]["peak_bytes"] < 0.9e9, "as docs/memory.md measured runs like it"


def test_what_does_not_fit_the_gpu_is_a_warning(bench: Bench) -> None:
    def told(gpu_type: str | None, **changes: Any) -> list[str]:
        body = dry_run(bench, base_model="flux-1-dev", method=METHOD, resources={"gpu_type": gpu_type}, **changes)
        return [warning["detail"] for warning in body["warnings"] if warning["code"] == "over_memory"]

    assert told("h100") == told(None) == []
    (detail,) = told("rtx-4090")
    assert "in the phase encoding (estimated), and rtx-4090 has 24 GiB" in detail
    whole = {"mode": "full", "learning_rate": 2e-6}
    assert len(told("h100", training=whole)) == 1
    assert told(None, training=whole) == [], "nobody has said that it will be the reference"


def test_a_schedule_that_comes_with_the_weights_is_assumed_for_the_estimate_alone(bench: Bench) -> None:
    known, unknown = (
        dry_run(bench, base_model="flux-1-dev", method={**METHOD, "shift": shift}) for shift in (3.0, None)
    )
    assert unknown["plan"] is None
    assert unknown["compute"]["flops"] == known["compute"]["flops"]
    assert any("a shift of 3 stands for it" in line for line in unknown["cost"]["assumptions"])
    assert not any("shift" in line for line in known["cost"]["assumptions"])
    dispersed = {"shift": None, "sampling_steps": 4, "eta": 3.0}
    body = dry_run(bench, base_model="flux-1-dev", method=dispersed)
    assert (body["compute"], body["cost"]) == (None, None)
    assert "before the base model is loaded" in body["unknown"]["compute"]
    assert body["memory"]["basis"] == "estimated"


def test_a_layer_that_the_model_does_not_have_leaves_memory_unknown(bench: Bench) -> None:
    body = dry_run(bench, training={"lora": {"targets": ["to_z"]}})
    assert body["memory"] is None
    assert "'to_z' fits no linear layer" in body["unknown"]["memory"]


def test_cost_and_memory_come_from_the_projects_own_jobs(bench: Bench) -> None:
    with bench.transaction() as session:
        workers.beat(session, "worker-1", Pool())
    bench.submit()
    claim = bench.claim()
    with bench.transaction() as session:
        leases.guard(session, claim.job_id, claim.epoch)
        values = {
            (1, "seconds"): 3.0,
            (2, "seconds"): 1.0,
            (1, "peak_memory_bytes"): 5e8,
            (2, "peak_memory_bytes"): 6e8,
        }
        metrics.upsert(session, claim.job_id, claim.epoch, values)
    training = {"steps": 900, "prompts_per_update": 16}
    body = dry_run(bench, training=training, limits={"max_gpu_hours": 0.5})
    cost = body["cost"]
    assert (cost["measured_on"], cost["seconds_per_update"], cost["gpu_hours"]) == (claim.job_id, 4.0, 1.0)
    assert (body["memory"]["peak_bytes"], body["unknown"]) == (600_000_000, {})
    assert (cost["basis"], body["memory"]["basis"], cost["gpu_hours_range"]) == ("measured", "measured", None)
    assert body["memory"]["measured_on"] == claim.job_id
    assert [warning["code"] for warning in body["warnings"]] == ["over_budget"]
    other = dry_run(bench, method={"type": "flow_grpo"})
    assert (other["cost"], other["memory"]["basis"]) == (None, "estimated"), "another method is another matter"
    foreign = bench.post(PATH, SPEC, key=bench.other_key).json()
    assert (foreign["cost"], foreign["memory"]["basis"], claim.job_id in str(foreign)) == (None, "estimated", False)
    with bench.transaction() as session:
        assert session.scalars(select(func.count()).select_from(Job)).one() == 1
