"""The self-check: what it passes, and every fault that it must stop, made on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from egrpo_runs import Constant, Redness, short_spec

from egrpo import lora, policy
from egrpo.advantage import Advantages
from egrpo.errors import SelfCheckError
from egrpo.events import EventWriter
from egrpo.models.flux import FluxAdapter
from egrpo.scoring import WeightedReward
from egrpo.selfcheck import check_groups, check_images, check_scores
from egrpo.train import train

REWARDS = [WeightedReward(Redness(), 1.0)]
ONE_STEP: dict[str, Any] = {"steps": 1}


def logs(spec: Any, output: Path, **options: Any) -> list[str]:
    """Runs and returns the lines of the log."""
    output.mkdir()
    with (output / "events").open("w+") as file:
        train(spec, output, events=EventWriter(output, file.fileno()), **options)
        file.seek(0)
        events = [json.loads(line) for line in file]
    return [event["message"] for event in events if event["type"] == "log"]


def test_a_sound_run_says_so_once_and_not_after_a_resume(random_flux: Path, tmp_path: Path) -> None:
    spec = short_spec(random_flux, training={"steps": 2})
    passed = [line for line in logs(spec, tmp_path / "run", rewards=REWARDS) if line.startswith("self-check passed")]
    assert len(passed) == 1
    assert "rewards differ in 6 of 6 groups" in passed[0]
    deviation = float(passed[0].split("1 within ")[1].split()[0])
    assert deviation < 1e-6
    (tmp_path / "run" / "events").unlink()
    with (tmp_path / "again").open("w+") as file:
        events = EventWriter(tmp_path / "run", file.fileno())
        train(spec, tmp_path / "run", resume=True, events=events, rewards=REWARDS)
        file.seek(0)
        assert "self-check" not in file.read()


def test_rewards_without_variance_stop_the_run(random_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfCheckError, match=r"in all 6 groups .* the 3 members are equal.* method\.group_size"):
        train(short_spec(random_flux), tmp_path / "run", rewards=[WeightedReward(Constant(), 1.0)])


def test_a_few_flat_groups_prove_nothing() -> None:
    few, many = (Advantages(np.zeros((1, size, 3)), np.ones((1, size), dtype=bool)) for size in (3, 4))
    check_groups(few, 3)
    with pytest.raises(SelfCheckError, match="in all 4 groups"):
        check_groups(many, 3)


def test_the_spec_can_turn_a_stop_into_a_warning(random_flux: Path, tmp_path: Path) -> None:
    spec = short_spec(random_flux, training={**ONE_STEP, "startup_checks": "warn"})
    lines = logs(spec, tmp_path / "run", rewards=[WeightedReward(Constant(), 1.0)])
    assert any("nothing to learn from" in line for line in lines)


class Boastful(Redness):
    """States a narrower range than it keeps."""

    range = (0.9, 1.0)


def test_scores_outside_the_stated_range_are_refused() -> None:
    rewards = [WeightedReward(Boastful(), 1.0)]
    check_scores(rewards, [np.array([0.9, 1.0])])
    with pytest.raises(SelfCheckError, match=r"'redness' gave scores from 0\.5 to 1 and states the range 0\.9 to 1"):
        check_scores(rewards, [np.array([0.5, 1.0])])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((2, 3, 4, 4), 0.5), "of one colour all over"),
        (torch.full((2, 3, 4, 4), torch.nan), "not finite"),
    ],
)
def test_images_that_are_no_images_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(SelfCheckError, match=message):
        check_images(images)


def test_an_image_with_a_picture_passes() -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 0, 0, 0] = 0.1
    check_images(images)


@contextmanager
def folded_twice(transformer: Any) -> Iterator[None]:
    """A fold with the adapter's scale applied twice, as adapters that load wrong do."""
    with lora.folded_weights(transformer):
        for layer in lora.adapted_layers(transformer).values():
            layer.get_base_layer().weight.data = layer.get_base_layer().weight.data + layer.get_delta_weight(
                lora.ADAPTER
            )
        yield


def test_a_rollout_with_other_weights_than_the_update_is_stopped(
    random_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the adapter is still zero at the first rollout, and both are the same function by chance."""
    monkeypatch.setattr(policy, "folded_weights", folded_twice)
    with pytest.raises(SelfCheckError, match="the policy update sees other transitions"):
        train(short_spec(random_flux, training=ONE_STEP), tmp_path / "run", rewards=REWARDS)


def test_a_model_whose_velocity_depends_on_the_batch_is_stopped(
    random_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., torch.Tensor] = FluxAdapter.velocity

    def leaking(self: FluxAdapter, x_BNC: torch.Tensor, *arguments: Any) -> torch.Tensor:
        return original(self, x_BNC, *arguments) + 1e-3 * x_BNC.mean(0)

    monkeypatch.setattr(FluxAdapter, "velocity", leaking)
    with pytest.raises(SelfCheckError, match=r"training\.micro_batch_size 1"):
        train(short_spec(random_flux, training=ONE_STEP), tmp_path / "run", rewards=REWARDS)
