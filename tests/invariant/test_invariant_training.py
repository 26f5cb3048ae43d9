"""Configurations and histories that must give the same adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from egrpo_runs import Redness, short_spec, spec_document, stop_after
from safetensors.torch import load_file

from egrpo.config import parse_spec
from egrpo.errors import StopRequested
from egrpo.scoring import WeightedReward
from egrpo.train import train

REWARDS = [WeightedReward(Redness(), 1.0)]
ADAPTER = "adapter/pytorch_lora_weights.safetensors"
EVERYTHING = {"ema_decay": 0.8, "lr_schedule": "cosine", "kl_weight": 0.1}


def adapter(spec: Any, output: Path, **arguments: Any) -> dict[str, torch.Tensor]:
    train(spec, output, rewards=REWARDS, **arguments)
    return load_file(output / ADAPTER)


@pytest.mark.parametrize("size", [1, 5])
def test_the_micro_batch_size_does_not_matter(random_flux: Path, tmp_path: Path, size: int) -> None:
    whole = adapter(short_spec(random_flux, training={"steps": 2, "micro_batch_size": 1000}), tmp_path / "whole")
    split = adapter(short_spec(random_flux, training={"steps": 2, "micro_batch_size": size}), tmp_path / "split")
    assert any(float(tensor.abs().max()) > 1e-4 for name, tensor in whole.items() if "lora_B" in name)
    for name, tensor in whole.items():
        # Adam divides by the gradient's size, so rounding in a gradient of nearly zero is visible in the step.
        torch.testing.assert_close(split[name], tensor, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("training", [EVERYTHING, {"updates_per_rollout": 3}], ids=["one-update", "three-updates"])
@pytest.mark.parametrize("calls", [3, 17, 30, 43])
def test_stopped_and_resumed_is_bit_the_same(
    random_flux: Path, tmp_path: Path, calls: int, training: dict[str, Any]
) -> None:
    """Stopped within an evaluation, a rollout, an update; some calls are in other places for the two settings."""
    spec = short_spec(
        random_flux,
        training={"steps": 5, **training},
        method={"active_steps_per_update": 2},
        checkpoint={"every_steps": 3},
    )
    straight = adapter(spec, tmp_path / "straight")
    with pytest.raises(StopRequested):
        train(spec, tmp_path / "stopped", rewards=REWARDS, check_stop=stop_after(calls))
    resumed = adapter(spec, tmp_path / "stopped", resume=True)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize(
    "method",
    [
        {"type": "egrpo", "kernel": "cps", "eta": 0.5},
        {"type": "g2rpo", "active_steps": [0, 2], "granularities": [1, 3]},
        {"type": "dance_grpo"},
        {"type": "flow_grpo"},
        {"type": "flow_grpo_fast"},
        {"type": "mix_grpo", "window_size": 2, "updates_per_window": 1},
    ],
    ids=lambda method: method["type"],
)
def test_every_method_trains_and_resumes_between_the_steps_on_one_rollout(
    random_flux: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    """Two minibatches, two passes, old log-probabilities and means kept in the checkpoint."""
    common = {"sampling_steps": 5, "shift": 3.0, "group_size": 3}
    training = {
        "steps": 3,
        "prompts_per_update": 1,
        "minibatches_per_rollout": 2,
        "updates_per_rollout": 2,
        "surrogate": "flow_dppo",
    }
    document = spec_document(random_flux, training=training, evaluation={"every_steps": 10})
    spec = parse_spec({**document, "method": {**common, **method}, "checkpoint": {"every_steps": 1}})
    straight = adapter(spec, tmp_path / "straight")
    assert any(float(tensor.abs().max()) > 1e-4 for name, tensor in straight.items() if "lora_B" in name)
    rows = [json.loads(line)["values"] for line in (tmp_path / "straight" / "metrics.ndjson").read_text().splitlines()]
    deviations = [row["ratio_deviation"] for row in rows if "ratio_deviation" in row]
    assert deviations[0] == 0
    assert deviations[1] > 0, "the second minibatch is scored against the policy that drew it"
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    for folder in ("step-000002", "step-000003"):
        shutil.rmtree(tmp_path / "resumed" / "checkpoints" / folder)
    resumed = adapter(spec, tmp_path / "resumed", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_killed_and_resumed_from_an_older_checkpoint_is_bit_the_same(random_flux: Path, tmp_path: Path) -> None:
    """A kill commits nothing: the run goes back to the last commit, and its metric rows are written anew."""
    spec = short_spec(random_flux, training={"steps": 5, **EVERYTHING})
    straight = adapter(spec, tmp_path / "straight")

    class Killed(BaseException):
        pass

    calls = 0

    def kill() -> None:
        nonlocal calls
        calls += 1
        if calls > 60:
            raise Killed

    with pytest.raises(Killed):
        train(spec, tmp_path / "killed", rewards=REWARDS, check_stop=kill)
    steps = [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()]
    assert steps == ["step-000002"]
    with (tmp_path / "killed" / "metrics.ndjson").open("a") as file:
        file.write('{"type": "metric", "step": 3, "val')
    resumed = adapter(spec, tmp_path / "killed", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    rows = (tmp_path / "killed" / "metrics.ndjson").read_text().count("\n")
    assert rows == (tmp_path / "straight" / "metrics.ndjson").read_text().count("\n")


def test_gradient_checkpointing_changes_nothing(random_flux: Path, tmp_path: Path) -> None:
    training = {"steps": 2}
    kept = adapter(short_spec(random_flux, training=training), tmp_path / "kept")
    twice = adapter(short_spec(random_flux, training={**training, "gradient_checkpointing": True}), tmp_path / "twice")
    assert all(torch.equal(kept[name], twice[name]) for name in kept)


def test_a_full_fine_tune_stopped_and_resumed_is_bit_the_same(random_flux: Path, tmp_path: Path) -> None:
    training = {"steps": 3, "mode": "full", "lora": None, "learning_rate": 1e-4, "ema_decay": 0.5}
    spec = short_spec(random_flux, training=training, checkpoint={"every_steps": 1})
    train(spec, tmp_path / "straight", rewards=REWARDS)
    with pytest.raises(StopRequested):
        train(spec, tmp_path / "stopped", rewards=REWARDS, check_stop=stop_after(34))
    train(spec, tmp_path / "stopped", rewards=REWARDS, resume=True)
    for name in ("transformer", "optimizer", "ema", "rng"):
        straight, resumed = (
            load_file(tmp_path / run / "checkpoints" / "step-000003" / f"{name}.safetensors")
            for run in ("straight", "stopped")
        )
        assert straight.keys() == resumed.keys()
        assert all(torch.equal(straight[key], resumed[key]) for key in straight), name


def test_the_seed_decides(random_flux: Path, tmp_path: Path) -> None:
    first = adapter(short_spec(random_flux, training={"steps": 2}), tmp_path / "a")
    same = adapter(short_spec(random_flux, training={"steps": 2}), tmp_path / "b")
    other = adapter(short_spec(random_flux, training={"steps": 2, "seed": 7}), tmp_path / "c")
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
