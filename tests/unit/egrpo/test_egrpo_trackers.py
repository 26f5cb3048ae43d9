"""Trackers: TensorBoard for real, a missing package, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from egrpo_runs import Redness, short_spec
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from egrpo.errors import ConfigError
from egrpo.evaluate import WeightedReward
from egrpo.train import train

REWARDS = [WeightedReward(Redness(), 1.0)]


def test_tensorboard_has_the_curves_and_the_spec(random_flux: Path, tmp_path: Path) -> None:
    spec = short_spec(random_flux, name="../a name", training={"steps": 2}, trackers=["tensorboard"])
    train(spec, tmp_path / "run", rewards=REWARDS)
    board = tmp_path / "run" / "trackers" / "tensorboard"
    events = EventAccumulator(str(board))
    events.Reload()
    assert [row.step for row in events.Scalars("reward_mean")] == [1, 2]
    assert [row.step for row in events.Scalars("eval_reward")] == [0, 2]
    settings = "".join(path.read_text() for path in board.rglob("hparams.yml"))
    assert "training.learning_rate: 0.001" in settings
    assert "name: ../a name" in settings
    assert "a red circle" not in settings
    assert not list(tmp_path.glob("*a name*"))


def test_a_missing_package_is_refused_before_the_model_is_loaded(random_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/trackers/0: 'mlflow' needs the package mlflow \(pip install mlflow\)"):
        train(short_spec(random_flux, trackers=["mlflow"]), tmp_path, rewards=REWARDS)


def test_trackers_do_not_decide_the_result(random_flux: Path) -> None:
    assert short_spec(random_flux).digest() == short_spec(random_flux, trackers=["wandb"]).digest()
