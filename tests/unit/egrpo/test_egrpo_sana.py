"""What Sana alone has: its scheduler, its convolutions, and the sizes it is deployed at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from families import PROMPTS, load_stock
from families.sana import FAMILIES, NUM_TOKENS, SHIFT, build_random_sana

from egrpo.config import LoRASpec
from egrpo.errors import ModelError
from egrpo.lora import add_adapter, folded_weights, target_modules
from egrpo.models.sana import SanaAdapter
from egrpo.rollout import Sampler
from egrpo.schedule import merge_plan

# Of numpy 2 about how diffusers reads a tensor in DPM-Solver++'s `set_timesteps`, which the trainer does not call.
of_the_shipped_scheduler = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def sana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_sana(tmp_path_factory.mktemp("models") / "sana")


def test_sizes_are_the_models_unless_the_spec_says_otherwise(sana: Path) -> None:
    model = SanaAdapter.load(str(sana))
    assert (model.height, model.width) == (32, 32)
    assert model.num_tokens == 16
    assert model.max_sequence_length == NUM_TOKENS
    model._pipeline.tokenizer.model_max_length = 10**30  # Gemma's tokenizer has no limit
    assert SanaAdapter.default_sequence_length(model._pipeline) == 300
    with pytest.raises(ModelError, match="multiples of 32, got 40x32"):
        SanaAdapter.load(str(sana), height=40, width=32)


@of_the_shipped_scheduler
def test_the_times_are_the_shipped_schedulers_without_its_guard(sana: Path) -> None:
    """DPM-Solver++ shifts 0.999*u where ours shifts u, so that its first step could not take the noise of eq. 2."""
    model = SanaAdapter.load(str(sana))
    scheduler = load_stock(sana).scheduler
    scheduler.set_timesteps(8)
    shipped, ours = np.array(scheduler.sigmas), np.array(model.sigmas(8))
    uniform = 1 - np.arange(9) / 8
    np.testing.assert_allclose(ours, SHIFT * uniform / (1 + (SHIFT - 1) * uniform), atol=1e-6)
    guarded = 0.999 * uniform
    np.testing.assert_allclose(shipped, SHIFT * guarded / (1 + (SHIFT - 1) * guarded), atol=1e-6)
    dispersions = [
        merge_plan(list(map(float, times)), eta=0.7, active=[0]).steps[0].dispersion for times in (shipped, ours)
    ]
    assert dispersions[0] > 10 > 1.5 > dispersions[1]


@of_the_shipped_scheduler
def test_euler_steps_approach_what_the_shipped_scheduler_draws(sana: Path) -> None:
    """Both solve one differential equation: the second-order solver and ours meet as the steps grow small."""
    model, stock = SanaAdapter.load(str(sana)), load_stock(sana)
    embeds = model.encode_prompts(PROMPTS[:1])

    def mean_distance(steps: int) -> float:
        latents = Sampler(model, 4.5, 1).ode(model.initial_latents([7]), model.sigmas(steps), embeds, torch.tensor([0]))
        shipped = stock(
            prompt=PROMPTS[0],
            height=32,
            width=32,
            num_inference_steps=steps,
            guidance_scale=4.5,
            generator=torch.Generator().manual_seed(7),
            output_type="pt",
            **FAMILIES[0].arguments,
        ).images
        return float((model.decode(latents) - shipped).abs().mean())

    assert mean_distance(96) < 0.001 < 0.25 * mean_distance(4)


def test_an_euler_scheduler_in_the_folder_makes_its_own_times(sana: Path, tmp_path: Path) -> None:
    pipeline = load_stock(sana)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    pipeline.save_pretrained(tmp_path)
    pipeline.scheduler.set_timesteps(5)
    assert SanaAdapter.load(str(tmp_path)).sigmas(5) == pipeline.scheduler.sigmas.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"use_flow_sigmas": False},
        {"prediction_type": "epsilon"},
        {"use_dynamic_shifting": True, "time_shift_type": "exponential"},
    ],
    ids=str,
)
def test_a_scheduler_that_is_no_flow_of_fixed_shift_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = build_random_sana(tmp_path / "sana", **settings)
    with pytest.raises(ModelError, match="scheduler DPMSolverMultistepScheduler without a fixed flow shift; allowed"):
        SanaAdapter.load(str(folder))


def test_the_mlps_layers_are_convolutions_and_fold_like_the_others(sana: Path) -> None:
    model = SanaAdapter.load(str(sana))
    sets = model.lora_target_sets
    attention = target_modules(model.transformer, "attention", sets)
    mlp = set(target_modules(model.transformer, "attention_mlp", sets)) - set(attention)
    assert len(attention) == 2 * 8
    assert mlp == {f"transformer_blocks.{i}.ff.{name}" for i in (0, 1) for name in ("conv_inverted", "conv_point")}
    for name, parameter in add_adapter(model, LoRASpec(rank=2, alpha=5), "attention_mlp", seed=0):
        parameter.data.normal_(std=0.3 if ".ff." in name else 0.0)
    embeds, x_BNC = model.encode_prompts(PROMPTS), model.initial_latents([1, 2])
    with torch.inference_mode():
        plain = model.velocity(x_BNC, 0.7, embeds, 1.0)
        model.transformer.disable_adapters()
        base = model.velocity(x_BNC, 0.7, embeds, 1.0)
        model.transformer.enable_adapters()
        with folded_weights(model.transformer):
            layer = model.transformer.transformer_blocks[0].ff.conv_inverted
            assert layer.merged
            folded = model.velocity(x_BNC, 0.7, embeds, 1.0)
        assert torch.equal(model.velocity(x_BNC, 0.7, embeds, 1.0), plain)
    torch.testing.assert_close(folded, plain, atol=1e-5, rtol=1e-5)
    assert float((plain - base).abs().max()) > 0.01
