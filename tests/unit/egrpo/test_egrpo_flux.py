"""The FLUX adapter against the stock pipeline of diffusers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from egrpo.errors import ModelError
from egrpo.models.flux import FluxAdapter
from egrpo.rollout import Sampler

PROMPTS = ["a red circle", "a blue square left of a yellow triangle"]


def stock_images(folder: Path, seeds: list[int], steps: int = 5, **arguments: object) -> torch.Tensor:
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    images = [
        pipeline(
            prompt,
            height=32,
            width=32,
            num_inference_steps=steps,
            guidance_scale=3.5,
            max_sequence_length=12,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **arguments,
        ).images
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    return torch.cat(images)


def our_images(model: FluxAdapter, seeds: list[int], sigmas: list[float]) -> torch.Tensor:
    embeds = model.encode_prompts(PROMPTS)
    latents = Sampler(model, 3.5, 100).ode(model.initial_latents(seeds), sigmas, embeds, torch.arange(len(seeds)))
    return model.decode(latents)


@pytest.mark.parametrize("fixture", ["random_flux", "random_flux_schnell"])
def test_our_ode_gives_the_stock_pipelines_image(fixture: str, request: pytest.FixtureRequest) -> None:
    """With embedded guidance and dynamic shift, and without either."""
    folder = request.getfixturevalue(fixture)
    model = FluxAdapter.load(str(folder))
    ours = our_images(model, [7, 8], model.sigmas(5))
    stock = stock_images(folder, [7, 8])
    assert float((ours - stock).abs().max()) < 1e-5
    assert float((ours[0] - ours[1]).abs().max()) > 0.05


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


def test_other_resolutions_than_the_models_own(random_flux: Path) -> None:
    model = FluxAdapter.load(str(random_flux), height=48, width=16)
    assert model.num_tokens == 3
    images = our_images(model, [1, 2], model.sigmas(2))
    assert images.shape == (2, 3, 48, 16)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_text_encoders_are_gone_when_dropped(random_flux: Path) -> None:
    model = FluxAdapter.load(str(random_flux))
    embeds = model.encode_prompts(PROMPTS * 40)
    assert len(embeds) == 80
    torch.testing.assert_close(embeds.tensors["sequence_BLD"][:2], embeds.tensors["sequence_BLD"][78:])
    model.drop_text_encoders()
    assert model._pipeline.text_encoder is None
    assert model._pipeline.text_encoder_2 is None


def test_bfloat16_gives_float32_velocities(random_flux: Path) -> None:
    model = FluxAdapter.load(str(random_flux), dtype=torch.bfloat16)
    embeds = model.encode_prompts(PROMPTS)
    velocity = model.velocity(model.initial_latents([1, 2]), 0.7, embeds, 3.5)
    assert velocity.dtype == torch.float32


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelError, match="'/nowhere/at-all' cannot be loaded"):
        FluxAdapter.load("/nowhere/at-all")


def test_a_folder_that_is_no_pipeline_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        FluxAdapter.load(str(tmp_path))


def test_a_resolution_that_does_not_fit_is_named(random_flux: Path) -> None:
    with pytest.raises(ModelError, match="multiples of 16, got 40x32"):
        FluxAdapter.load(str(random_flux), height=40, width=32)
