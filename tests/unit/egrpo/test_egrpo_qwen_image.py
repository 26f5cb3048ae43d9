"""What is peculiar to Qwen-Image and Z-Image; the rest is in `test_model_families`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families.qwen_image import build_random_qwen_image
from families.z_image import build_random_z_image

from egrpo.errors import ModelError
from egrpo.models.adapter import PromptEmbeds
from egrpo.models.qwen_image import QwenImageAdapter
from egrpo.models.z_image import ZImageAdapter


@pytest.fixture(scope="module")
def qwen_image(tmp_path_factory: pytest.TempPathFactory) -> QwenImageAdapter:
    folder = build_random_qwen_image(tmp_path_factory.mktemp("models") / "qwen-image")
    return QwenImageAdapter.load(str(folder), height=32, width=32)


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> ZImageAdapter:
    folder = build_random_z_image(tmp_path_factory.mktemp("models") / "z-image")
    return ZImageAdapter.load(str(folder), height=32, width=32)


def test_a_model_with_embedded_guidance_is_refused(tmp_path: Path) -> None:
    """The stock transformer has the setting and stops with a TypeError where it is true."""
    folder = build_random_qwen_image(tmp_path / "distilled", guidance_embeds=True)
    with pytest.raises(ModelError, match=r"guidance_embeds true.*allowed: false"):
        QwenImageAdapter.load(str(folder))


def test_the_last_time_before_0_is_the_schedulers_own(qwen_image: QwenImageAdapter) -> None:
    """shift_terminal 0.02 with a shift of e^0.5 at the base length: 1 - (1 - t)*0.98/(1 - t_last)."""
    uniform = np.array([1 - i / 8 for i in range(8)])
    shifted = np.exp(0.5) / (np.exp(0.5) + 1 / uniform - 1)
    expected = 1 - (1 - shifted) * 0.98 / (1 - shifted[-1])
    np.testing.assert_allclose(qwen_image.sigmas(8), [*expected, 0], atol=1e-6)


def test_guided_tokens_keep_the_norm_of_the_positive_velocity(qwen_image: QwenImageAdapter) -> None:
    embeds, x_BNC = qwen_image.encode_prompts(["a red circle"]), qwen_image.initial_latents([1])
    with torch.no_grad():
        plain, guided = (qwen_image.velocity(x_BNC, 0.8, embeds, guidance) for guidance in (1.0, 4.0))
    torch.testing.assert_close(guided.norm(dim=-1), plain.norm(dim=-1), rtol=1e-5, atol=0)
    assert float((guided - plain).abs().max()) > 1e-3


def test_padding_beyond_the_longest_prompt_of_a_batch_is_not_computed(qwen_image: QwenImageAdapter) -> None:
    """So that its contents are of no consequence, and most batches need no mask in their attention."""
    prompts = ["a red circle", "a blue square", "a blue square left of a yellow triangle"]
    embeds = qwen_image.encode_prompts(prompts)[torch.tensor([0, 1])]
    lengths = embeds.tensors["mask_BL"].sum(dim=1)
    assert lengths[0] == lengths[1] < embeds.tensors["mask_BL"].shape[1]
    spoiled = embeds.tensors["sequence_BLD"].clone()
    spoiled[:, int(lengths[0]) :] = torch.nan
    x_BNC = qwen_image.initial_latents([1, 2])
    with torch.no_grad():
        clean = qwen_image.velocity(x_BNC, 0.8, embeds, 1.0)
        again = qwen_image.velocity(x_BNC, 0.8, PromptEmbeds({**embeds.tensors, "sequence_BLD": spoiled}), 1.0)
    assert torch.equal(clean, again)


def test_rotary_tables_are_made_when_the_model_is_loaded(qwen_image: QwenImageAdapter) -> None:
    """Made in a rollout's inference mode, the copy that the stock model keeps on a GPU would break the update there."""
    kept = type(qwen_image.transformer.pos_embed)._get_device_freqs.__closure__
    assert kept is not None
    (cache,) = [cell.cell_contents for cell in kept if hasattr(cell.cell_contents, "cache_info")]
    before = cache.cache_info().misses
    with torch.inference_mode():
        qwen_image.velocity(qwen_image.initial_latents([1]), 0.8, qwen_image.encode_prompts(["a red circle"]), 4.0)
    assert cache.cache_info().misses == before


def test_default_sizes_are_the_stock_pipelines(qwen_image: QwenImageAdapter, z_image: ZImageAdapter) -> None:
    assert QwenImageAdapter.default_size(qwen_image._pipeline) == (1024, 1024)
    assert ZImageAdapter.default_size(z_image._pipeline) == (1024, 1024)


def test_prompts_longer_than_the_limit_are_cut(qwen_image: QwenImageAdapter, z_image: ZImageAdapter) -> None:
    for model in (qwen_image, z_image):
        embeds = model.encode_prompts(["a red circle " * 40, "a"])
        assert embeds.tensors["mask_BL"].shape == (2, model.max_sequence_length)
        assert embeds.tensors["mask_BL"][0].all()
        assert not embeds.tensors["mask_BL"][1].all()


def test_batches_of_different_lengths_are_encoded_as_each_alone(
    qwen_image: QwenImageAdapter, z_image: ZImageAdapter
) -> None:
    """Nothing is longer than the longest prompt: padded to the limit, ten thousand prompts would fill a GPU."""
    for model in (qwen_image, z_image):
        prompts = [*["a red circle"] * model.encode_batch_size, "a blue square left of a yellow triangle"]
        embeds = model.encode_prompts(prompts)
        lengths = embeds.tensors["mask_BL"].sum(dim=1)
        assert lengths[0] < lengths[-1] == embeds.tensors["sequence_BLD"].shape[1] < model.max_sequence_length
        alone = model.encode_prompts(prompts[:1])
        assert torch.equal(embeds.tensors["mask_BL"][0, : lengths[0]], alone.tensors["mask_BL"][0])
        torch.testing.assert_close(embeds.tensors["sequence_BLD"][0, : lengths[0]], alone.tensors["sequence_BLD"][0])
        assert not embeds.tensors["sequence_BLD"][0, lengths[0] :].any()


def test_encoding_leaves_the_prompts_as_they_are(z_image: ZImageAdapter) -> None:
    """The stock pipeline writes its chat template into the list that it is given."""
    prompts = ["a red circle", "a blue square"]
    z_image._encode(prompts)
    assert prompts == ["a red circle", "a blue square"]
