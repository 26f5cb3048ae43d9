"""What is FLUX.1's own; what all families have in common is in `test_model_families`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from egrpo.errors import ModelError
from egrpo.models.flux import FluxAdapter

PROMPTS = ["a red circle", "a blue square left of a yellow triangle"]


def test_initial_latents_are_the_stock_draws(random_flux: Path) -> None:
    model = FluxAdapter.load(str(random_flux))
    pipeline = FluxPipeline.from_pretrained(random_flux, local_files_only=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    stock, _ = pipeline.prepare_latents(2, 16, 32, 32, torch.float32, torch.device("cpu"), generators)
    assert torch.equal(model.initial_latents([3, 4]), stock)


def test_the_schedule_is_the_pipelines_own_unless_a_shift_is_given(random_flux: Path) -> None:
    model = FluxAdapter.load(str(random_flux))
    own = model.sigmas(8)
    # Dynamic shift at the scheduler's base length: mu = base_shift, t = e^mu / (e^mu + 1/u - 1).
    uniform = np.array([1 - i / 8 for i in range(8)])
    expected = np.exp(0.5) / (np.exp(0.5) + (1 / uniform - 1))
    np.testing.assert_allclose(own[:-1], expected, atol=1e-6)
    assert own[-1] == 0
    assert model.sigmas(16, 3.0)[1] == pytest.approx(0.9783, abs=5e-5)


def test_many_prompts_are_encoded_in_parts(random_flux: Path) -> None:
    embeds = FluxAdapter.load(str(random_flux)).encode_prompts(PROMPTS * 40)
    assert len(embeds) == 80
    torch.testing.assert_close(embeds.tensors["sequence_BLD"][:2], embeds.tensors["sequence_BLD"][78:])


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelError, match="'/nowhere/at-all' cannot be loaded"):
        FluxAdapter.load("/nowhere/at-all")


def test_a_resolution_that_does_not_fit_is_named(random_flux: Path) -> None:
    with pytest.raises(ModelError, match="multiples of 16, got 40x32"):
        FluxAdapter.load(str(random_flux), height=40, width=32)
