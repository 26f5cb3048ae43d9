"""What Lumina 2 alone has: the sizes it is deployed at, its layers, its schedule and its norm under guidance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families.lumina2 import NUM_TOKENS, build_random_lumina2

from egrpo.lora import target_modules
from egrpo.models.lumina2 import Lumina2Adapter


@pytest.fixture(scope="module")
def lumina(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_lumina2(tmp_path_factory.mktemp("models") / "lumina2")


def test_sizes_are_the_pipelines_unless_the_spec_says_otherwise(lumina: Path) -> None:
    model = Lumina2Adapter.load(str(lumina))
    assert (model.height, model.width) == (32, 32)
    assert model.num_tokens == 4
    assert model.hidden_width == 32
    assert model.max_sequence_length == NUM_TOKENS
    model._pipeline.tokenizer.model_max_length = 10**30  # Gemma's tokenizer has no limit
    assert Lumina2Adapter.default_sequence_length(model._pipeline) == 256


def test_the_layers_of_each_target_set(lumina: Path) -> None:
    transformer = Lumina2Adapter.load(str(lumina)).transformer
    sets = Lumina2Adapter.lora_target_sets
    attention = target_modules(transformer, "attention", sets)
    mlp = set(target_modules(transformer, "attention_mlp", sets)) - set(attention)
    # Two layers and a refiner each for image and text.
    assert len(attention) == 4 * (2 + 2)
    assert len(mlp) == 3 * (2 + 2)


@pytest.mark.parametrize(
    ("dynamic_shift", "shift"), [(False, 6.0), (True, np.exp(0.5 + 0.65 * 2 / 4094))], ids=["fixed", "dynamic"]
)
def test_the_shift_is_fixed_or_that_of_the_channels(tmp_path: Path, dynamic_shift: bool, shift: float) -> None:
    """The stock pipeline takes the 4 latent channels for the number of tokens: mu = 0.5 + 0.65*(4 - 2)/(4096 - 2)."""
    folder = build_random_lumina2(tmp_path / "lumina2", dynamic_shift=dynamic_shift)
    uniform = 1 - np.arange(6) / 6
    expected = shift * uniform / (1 + (shift - 1) * uniform)
    for height in (32, 64):
        np.testing.assert_allclose(Lumina2Adapter.load(str(folder), height=height).sigmas(6)[:-1], expected, atol=1e-6)


def test_guidance_turns_the_rows_of_a_latent_and_keeps_their_norm(lumina: Path) -> None:
    model = Lumina2Adapter.load(str(lumina), height=32, width=48)
    embeds, x_BNC = model.encode_prompts(["a red circle"]), model.initial_latents([1])
    with torch.no_grad():
        plain, guided = (
            model.velocity(x_BNC, 0.7, embeds, guidance).reshape(4, 6, 4)  # rows, columns, channels
            for guidance in (1.0, 4.0)
        )
    torch.testing.assert_close(guided.norm(dim=1), plain.norm(dim=1))
    assert float((guided - plain).abs().max()) > 1e-3
