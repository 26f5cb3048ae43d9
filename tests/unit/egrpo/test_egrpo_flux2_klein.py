"""What FLUX.2-klein alone has: the sizes it is deployed at, its layers and its schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from families.flux2_klein import NUM_TOKENS, build_random_flux2_klein

from egrpo.lora import target_modules
from egrpo.models.flux2_klein import Flux2KleinAdapter


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_flux2_klein(tmp_path_factory.mktemp("models") / "flux2-klein", is_distilled=False)


def test_images_are_1024_pixels_unless_the_spec_says_otherwise(klein: Path) -> None:
    model = Flux2KleinAdapter.load(str(klein))
    assert (model.height, model.width) == (1024, 1024)
    assert model.num_tokens == 4096
    assert model.max_sequence_length == NUM_TOKENS
    model._pipeline.tokenizer.model_max_length = 131072  # Qwen3's
    assert Flux2KleinAdapter.default_sequence_length(model._pipeline) == 512


def test_the_layers_of_each_target_set(klein: Path) -> None:
    transformer = Flux2KleinAdapter.load(str(klein)).transformer
    sets = Flux2KleinAdapter.lora_target_sets
    attention = target_modules(transformer, "attention", sets)
    # Double stream: q, k, v and output of image and text; single stream: one layer in, one out.
    assert len(attention) == 8 + 2
    mlp = set(target_modules(transformer, "attention_mlp", sets)) - set(attention)
    assert sorted(name.split(".", 2)[2] for name in mlp) == [
        "ff.linear_in",
        "ff.linear_out",
        "ff_context.linear_in",
        "ff_context.linear_out",
    ]


@pytest.mark.parametrize(("steps", "mu"), [(4, 2.291178), (50, 2.023351)])
def test_the_shift_depends_on_resolution_and_steps(klein: Path, steps: int, mu: float) -> None:
    """At 1024 pixels, N = 4096 tokens, by Black Forest Labs' fit: mu is linear in the steps.

    Through mu(10) = 8.73809524e-05 N + 1.89833333 and mu(200) = 0.00016927 N + 0.45666666; t = e^mu / (e^mu + 1/u - 1).
    """
    uniform = np.array([1 - i / steps for i in range(steps)])
    expected = np.exp(mu) / (np.exp(mu) + 1 / uniform - 1)
    np.testing.assert_allclose(Flux2KleinAdapter.load(str(klein)).sigmas(steps)[:-1], expected, atol=1e-5)
