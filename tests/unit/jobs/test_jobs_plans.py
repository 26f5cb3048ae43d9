"""The schedule of a pipeline, computed without diffusers, against diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from egrpo.catalogue import ModelEntry
from egrpo.schedule import shifted_sigmas
from jobs.errors import InvalidRequest
from jobs.plans import scheduler_shift
from jobs.spec import parse

SPEC: dict[str, Any] = {
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle"]},
    "reward": {"components": [{"type": "shapes"}]},
}


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


def test_a_plan_over_the_limit_on_the_models_own_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 3.0}))
    monkeypatch.setattr(ModelEntry, "folder", tmp_path)
    parse(SPEC)
    with pytest.raises(InvalidRequest) as caught:
        parse({**SPEC, "method": {"merging": "fixed", "fixed_length": 6}})
    (error,) = caught.value.errors
    assert (error.pointer, error.code) == ("/method/dispersion_limit", "dispersion_above_limit")
    assert "1->7 (2.91)" in error.detail


def test_a_model_whose_weights_are_elsewhere_is_left_to_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelEntry, "folder", tmp_path)
    parse({**SPEC, "method": {"merging": "fixed", "fixed_length": 6}})
