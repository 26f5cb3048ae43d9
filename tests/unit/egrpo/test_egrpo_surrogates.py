"""The surrogates in a whole run: two optimizer steps on one rollout, of which the second has left the old policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from egrpo_runs import Redness, short_spec

from egrpo.scoring import WeightedReward
from egrpo.train import train


def updates(folder: Path, model: Path, **training: Any) -> list[dict[str, float]]:
    """Returns what the two optimizer steps on one rollout measured."""
    spec = short_spec(
        model,
        training={"steps": 2, "updates_per_rollout": 2, **training},
        method={"active_steps": [0, 2]},
        evaluation={"prompts": 1, "images_per_prompt": 1},
    )
    train(spec, folder, rewards=[WeightedReward(Redness(), 1.0)])
    rows = [json.loads(line)["values"] for line in (folder / "metrics.ndjson").read_text().splitlines()]
    return [values for values in rows if "grad_norm" in values]


@pytest.mark.parametrize(
    "training",
    [
        {"surrogate": "ppo_clip", "timestep_rescale": "flash"},
        {"surrogate": "grpo_guard", "clip_range": 1e-9},
        {"surrogate": "flow_dppo", "divergence_limit": 1e-12},
    ],
    ids=["ppo-clip", "grpo-guard", "flow-dppo"],
)
def test_the_second_update_has_left_the_trust_region(random_flux: Path, tmp_path: Path, training: Any) -> None:
    first, second = updates(tmp_path / "run", random_flux, **training)
    assert (first["ratio_deviation"], first["clip_fraction"]) == (0, 0)
    assert first["grad_norm"] > 0
    assert second["ratio_deviation"] > 0
    if training["surrogate"] != "ppo_clip":
        assert second["clip_fraction"] > 0.5


def test_a_wide_divergence_limit_stops_nothing(random_flux: Path, tmp_path: Path) -> None:
    _, second = updates(tmp_path / "run", random_flux, surrogate="flow_dppo", divergence_limit=1.0)
    assert second["ratio_deviation"] > 0
    assert second["clip_fraction"] == 0


def test_a_tiny_gradient_norm_holds_the_policy_back(random_flux: Path, tmp_path: Path) -> None:
    """Adam divides by a gradient's size, but not below its epsilon of 1e-8."""
    _, free = updates(tmp_path / "free", random_flux)
    _, held = updates(tmp_path / "held", random_flux, max_grad_norm=1e-12)
    assert held["ratio_deviation"] < free["ratio_deviation"] / 10
