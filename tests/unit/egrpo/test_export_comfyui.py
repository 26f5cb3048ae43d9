"""The ComfyUI file: the keys, and the image that ComfyUI's own arithmetic draws with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfyui_rules
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.loaders import single_file_utils
from peft.tuners.lora import Linear as LoRALinear
from safetensors import safe_open
from safetensors.torch import load_file

from egrpo.config import LoRASpec
from egrpo.errors import ConfigError
from egrpo.export import export_adapter
from egrpo.export.comfyui_keys import check_formats
from egrpo.lora import add_adapter
from egrpo.models.flux import FluxAdapter
from egrpo.rollout import Sampler

GOLDEN = Path(__file__).parents[2] / "golden" / "comfyui_keys"
RANK, ALPHA = 2, 5.0


def trained(folder: Path, targets: Any = "all") -> FluxAdapter:
    """A model with an adapter that does something, alpha and rank not the same."""
    model = FluxAdapter.load(str(folder))
    parameters = add_adapter(model, LoRASpec(rank=RANK, alpha=ALPHA), targets, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in parameters:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def exported(model: FluxAdapter, folder: Path) -> dict[str, torch.Tensor]:
    (name,) = export_adapter(model, folder, ["comfyui"])
    tensors: dict[str, torch.Tensor] = load_file(folder / name)
    return tensors


def test_alpha_is_the_rank_and_the_scale_is_in_the_matrices(random_flux: Path, tmp_path: Path) -> None:
    model = trained(random_flux, ["attn.to_q"])
    file = exported(model, tmp_path)
    key = "transformer.transformer_blocks.0.attn.to_q"
    layer = model.transformer.transformer_blocks[0].attn.to_q
    assert float(file[f"{key}.alpha"]) == RANK
    torch.testing.assert_close(file[f"{key}.lora_A.weight"], layer.lora_A["default"].weight)
    torch.testing.assert_close(file[f"{key}.lora_B.weight"], layer.lora_B["default"].weight * ALPHA / RANK)
    with safe_open(tmp_path / "comfyui_lora.safetensors", "pt") as opened:
        assert opened.metadata() == {
            "format": "pt", "rank": "2", "alpha": "2", "trained_alpha": "5.0", "scale": "folded into lora_B"
        }  # fmt: skip


def test_every_key_of_every_layer_is_in_comfyuis_map(random_flux: Path, tmp_path: Path) -> None:
    """All linear layers of the family against the golden list, which was read off ComfyUI's map."""
    model = trained(random_flux)
    file = exported(model, tmp_path)
    places = comfyui_rules.layout(model.family, FluxAdapter.load(str(random_flux)).transformer)
    keys = comfyui_rules.key_map(model.family, places)
    stems = sorted({name.removesuffix(".alpha") for name in file if name.endswith(".alpha")})
    lines = [f"{stem} -> {keys[stem]}" for stem in stems]
    assert lines == (GOLDEN / f"{model.family}.txt").read_text().splitlines()
    assert set(file) == {f"{stem}{end}" for stem in stems for end in (".lora_A.weight", ".lora_B.weight", ".alpha")}


@pytest.mark.parametrize("targets", ["attention", "attention_mlp", "all"])
def test_comfyuis_arithmetic_draws_the_trainers_image(random_flux: Path, tmp_path: Path, targets: str) -> None:
    """On the base model's weights in ComfyUI's own layout; and it is seen at all."""
    model = trained(random_flux, targets)
    file = exported(model, tmp_path)
    latents = Sampler(model, 3.5, 8).ode(
        model.initial_latents([9]), model.sigmas(4), model.encode_prompts(["a red circle"]), torch.tensor([0])
    )
    ours = model.decode(latents)
    pipeline = FluxPipeline.from_pretrained(random_flux, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    without = draw(pipeline)
    places = comfyui_rules.layout(model.family, pipeline.transformer)
    modules = {layer: pipeline.transformer.get_submodule(layer) for layer in places}
    weights = comfyui_rules.to_comfyui({layer: module.weight.data for layer, module in modules.items()}, places)
    comfyui_rules.patch(weights, file, comfyui_rules.key_map(model.family, places))
    for layer, weight in comfyui_rules.from_comfyui(weights, places).items():
        modules[layer].weight.data = weight
    assert float((draw(pipeline) - ours).abs().max()) < 1e-4
    assert float((without - ours).abs().max()) > 20 * 1e-4


class Checkpoint(dict[str, torch.Tensor]):
    """An original checkpoint of which only the linear layers are of interest: norms are whatever is asked for."""

    def pop(self, key: str, *_: Any) -> torch.Tensor:
        """Returns the tensor, or one that stands for a norm's."""
        return super().pop(key, torch.zeros(1))


def test_the_layout_is_that_of_original_checkpoints() -> None:
    """Our reading of ComfyUI's layout against diffusers' converter from it, at the real model's widths.

    Every row of every weight has its own number, so that a wrong layer, offset or half is seen.
    """
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True)
    places = comfyui_rules.layout("flux", transformer)
    sizes: dict[str, int] = {}
    for place in places.values():
        sizes[place.weight] = sizes.get(place.weight, 0) + place.length
    numbered, start = Checkpoint(), 0
    for name, size in sizes.items():
        numbered[name] = torch.arange(start, start + size, dtype=torch.float64)[:, None]
        numbered[name.replace(".weight", ".bias")] = numbered[name].flatten()
        start += size
    expected = comfyui_rules.from_comfyui(numbered, places)
    converted = single_file_utils.convert_flux_transformer_checkpoint_to_diffusers(Checkpoint(numbered))
    for layer, rows in expected.items():
        assert torch.equal(converted[f"{layer}.weight"], rows), layer


def test_stock_diffusers_reads_the_comfyui_file_too(random_flux: Path, tmp_path: Path) -> None:
    """diffusers' own reading of alpha tensors beside diffusers' names."""
    model = trained(random_flux, "attention_mlp")
    file = exported(model, tmp_path)
    pipeline = FluxPipeline.from_pretrained(random_flux, local_files_only=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name="comfyui_lora.safetensors")
    ours = dict(model.transformer.named_modules())
    loaded = {name: module for name, module in pipeline.transformer.named_modules() if isinstance(module, LoRALinear)}
    assert 3 * len(loaded) == len(file)
    for name, module in loaded.items():
        (adapter,) = module.active_adapters
        torch.testing.assert_close(module.get_delta_weight(adapter), ours[name].get_delta_weight("default"))


def test_a_family_without_a_key_map_is_refused() -> None:
    check_formats(["diffusers", "peft"], "sana")
    with pytest.raises(ConfigError, match=r"^/export/formats/1: ComfyUI has no key map for the family 'sana'; "):
        check_formats(["diffusers", "comfyui"], "sana")
    check_formats(["comfyui"], "flux")


def draw(pipeline: FluxPipeline) -> torch.Tensor:
    images: torch.Tensor = pipeline(
        "a red circle",
        height=32,
        width=32,
        num_inference_steps=4,
        guidance_scale=3.5,
        max_sequence_length=12,
        generator=torch.Generator().manual_seed(9),
        output_type="pt",
    ).images
    return images
