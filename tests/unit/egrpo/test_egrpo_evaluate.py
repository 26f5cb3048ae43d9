"""The fixed prompts, seeds and schedule that every evaluation of a run draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from egrpo_runs import short_spec

from egrpo.evaluate import EvaluationSet
from egrpo.models.flux import FluxAdapter
from egrpo.schedule import shifted_sigmas


def test_what_an_evaluation_draws_is_in_its_spec(random_flux: Path) -> None:
    model = FluxAdapter.load(random_flux, height=32, width=32)
    embeds = model.encode_prompts(["a red circle", "a blue square"])

    def drawn(**evaluation: int) -> EvaluationSet:
        spec = short_spec(random_flux, evaluation=evaluation)
        return EvaluationSet.of(spec, model, ["a red circle", "a blue square"], embeds)

    found = drawn(seed=7, images_per_prompt=3, sampling_steps=4)
    assert found.seeds_R == (7, 8, 9, 10, 11, 12)
    assert found.prompt_of_row == [0, 0, 0, 1, 1, 1]
    assert torch.equal(found.x_RNC[2], model.initial_latents([9])[0])
    assert found.sigmas == pytest.approx(shifted_sigmas(4, 3.0))
    assert drawn().sigmas == pytest.approx(shifted_sigmas(6, 3.0)), "the method's own number of steps"
