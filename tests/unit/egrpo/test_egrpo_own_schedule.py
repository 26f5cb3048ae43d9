"""The schedule of a pipeline, computed without diffusers, against diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from egrpo_runs import short_spec

from egrpo.models.flux import FluxAdapter
from egrpo.own_schedule import scheduler_shift, sigmas_of
from egrpo.schedule import shifted_sigmas


@pytest.mark.parametrize("num_tokens", [16, 256, 4096])
@pytest.mark.parametrize(
    "config",
    [{"shift": 3.0}, {}, {"use_dynamic_shifting": True}, {"use_dynamic_shifting": True, "base_shift": 0.3}],
)
def test_the_schedule_of_diffusers(config: dict[str, Any], num_tokens: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    whole = dict(scheduler.config)
    mu = calculate_shift(num_tokens, *(whole[name] for name in NAMES))
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 16, 16), mu=mu)
    shift = scheduler_shift(whole, num_tokens)
    assert shift is not None
    assert shifted_sigmas(16, shift) == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)


NAMES = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")


@pytest.mark.parametrize("bending", [{"use_karras_sigmas": True}, {"shift_terminal": 0.1}])
def test_other_schedules_are_left_to_the_trainer(bending: dict[str, Any]) -> None:
    assert scheduler_shift(bending, 16) is None
    assert scheduler_shift({"use_dynamic_shifting": True, "time_shift_type": "linear"}, 16) is None


def test_a_folder_tells_what_its_loaded_model_tells(random_flux: Path) -> None:
    spec = short_spec(random_flux, method={"shift": None}, height=64, width=32)
    model = FluxAdapter.load(random_flux, height=64, width=32)
    assert sigmas_of(spec) == pytest.approx(model.sigmas(6), abs=1e-6)


def test_a_shift_needs_no_model_and_a_dynamic_one_needs_the_size(random_flux: Path) -> None:
    assert sigmas_of(short_spec(random_flux)) == shifted_sigmas(6, 3.0)
    assert sigmas_of(short_spec(random_flux, method={"shift": None})) is None


def test_another_familys_folder_is_left_to_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 3.0}))
    for name, known in (("FluxPipeline", True), ("LuminaPipeline", False)):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        assert (sigmas_of(short_spec(tmp_path, method={"shift": None})) is not None) is known
