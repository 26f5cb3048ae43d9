"""What ComfyUI does with a LoRA file, written from its public key maps and its rule; for tests of our files.

`Layout` says where each linear layer of a diffusers transformer lies in ComfyUI's own weights (the layout of the
model's original release): which weight, which rows of it, and whether the two halves are the other way round.
`key_map` is what ComfyUI looks up in a file, `patch` is what it then does.

Sources: Comfy-Org/ComfyUI, comfy/lora.py 17358c8, comfy/utils.py 09708ea, comfy/weight_adapter/lora.py 6f98b15. The
layouts are checked against diffusers' own converters of original checkpoints in `test_export_comfyui.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Rows of one of ComfyUI's weights; `swapped`: its first half is the second half of diffusers' layer."""

    weight: str
    start: int
    length: int
    swapped: bool = False

    def __str__(self) -> str:
        halves = " halves swapped" if self.swapped else ""
        return f"{self.weight}[{self.start}:{self.start + self.length}]{halves}"


# diffusers' layer (a pattern), ComfyUI's weight. Layers of one weight lie below each other in the order given here.
_FLUX_ATTENTION = (
    (r"^transformer_blocks\.(\d+)\.attn\.to_[qkv]$", r"double_blocks.\1.img_attn.qkv"),
    (r"^transformer_blocks\.(\d+)\.attn\.add_[qkv]_proj$", r"double_blocks.\1.txt_attn.qkv"),
    (r"^transformer_blocks\.(\d+)\.attn\.to_out\.0$", r"double_blocks.\1.img_attn.proj"),
    (r"^transformer_blocks\.(\d+)\.attn\.to_add_out$", r"double_blocks.\1.txt_attn.proj"),
)
_LAYERS: dict[str, tuple[tuple[str, str], ...]] = {
    "flux": (
        *_FLUX_ATTENTION,
        (r"^transformer_blocks\.(\d+)\.norm1\.linear$", r"double_blocks.\1.img_mod.lin"),
        (r"^transformer_blocks\.(\d+)\.norm1_context\.linear$", r"double_blocks.\1.txt_mod.lin"),
        (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj$", r"double_blocks.\1.img_mlp.0"),
        (r"^transformer_blocks\.(\d+)\.ff\.net\.2$", r"double_blocks.\1.img_mlp.2"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj$", r"double_blocks.\1.txt_mlp.0"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.net\.2$", r"double_blocks.\1.txt_mlp.2"),
        (r"^single_transformer_blocks\.(\d+)\.(?:attn\.to_[qkv]|proj_mlp)$", r"single_blocks.\1.linear1"),
        (r"^single_transformer_blocks\.(\d+)\.proj_out$", r"single_blocks.\1.linear2"),
        (r"^single_transformer_blocks\.(\d+)\.norm\.linear$", r"single_blocks.\1.modulation.lin"),
        (r"^time_text_embed\.timestep_embedder\.linear_1$", "time_in.in_layer"),
        (r"^time_text_embed\.timestep_embedder\.linear_2$", "time_in.out_layer"),
        (r"^time_text_embed\.text_embedder\.linear_1$", "vector_in.in_layer"),
        (r"^time_text_embed\.text_embedder\.linear_2$", "vector_in.out_layer"),
        (r"^time_text_embed\.guidance_embedder\.linear_1$", "guidance_in.in_layer"),
        (r"^time_text_embed\.guidance_embedder\.linear_2$", "guidance_in.out_layer"),
        (r"^x_embedder$", "img_in"),
        (r"^context_embedder$", "txt_in"),
        (r"^proj_out$", "final_layer.linear"),
        (r"^norm_out\.linear$", "final_layer.adaLN_modulation.1"),
    ),
    "flux2": (
        *_FLUX_ATTENTION,
        (r"^transformer_blocks\.(\d+)\.ff\.linear_in$", r"double_blocks.\1.img_mlp.0"),
        (r"^transformer_blocks\.(\d+)\.ff\.linear_out$", r"double_blocks.\1.img_mlp.2"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.linear_in$", r"double_blocks.\1.txt_mlp.0"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.linear_out$", r"double_blocks.\1.txt_mlp.2"),
        (r"^single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj$", r"single_blocks.\1.linear1"),
        (r"^single_transformer_blocks\.(\d+)\.attn\.to_out$", r"single_blocks.\1.linear2"),
        (r"^(double_stream_modulation_img|double_stream_modulation_txt|single_stream_modulation)\.linear$", r"\1.lin"),
        (r"^time_guidance_embed\.timestep_embedder\.linear_1$", "time_in.in_layer"),
        (r"^time_guidance_embed\.timestep_embedder\.linear_2$", "time_in.out_layer"),
        (r"^time_guidance_embed\.guidance_embedder\.linear_1$", "guidance_in.in_layer"),
        (r"^time_guidance_embed\.guidance_embedder\.linear_2$", "guidance_in.out_layer"),
        (r"^x_embedder$", "img_in"),
        (r"^context_embedder$", "txt_in"),
        (r"^proj_out$", "final_layer.linear"),
        (r"^norm_out\.linear$", "final_layer.adaLN_modulation.1"),
    ),
    "sd3": (
        (r"^transformer_blocks\.(\d+)\.(attn2?)\.to_[qkv]$", r"joint_blocks.\1.x_block.\2.qkv"),
        (r"^transformer_blocks\.(\d+)\.(attn2?)\.to_out\.0$", r"joint_blocks.\1.x_block.\2.proj"),
        (r"^transformer_blocks\.(\d+)\.attn\.add_[qkv]_proj$", r"joint_blocks.\1.context_block.attn.qkv"),
        (r"^transformer_blocks\.(\d+)\.attn\.to_add_out$", r"joint_blocks.\1.context_block.attn.proj"),
        (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj$", r"joint_blocks.\1.x_block.mlp.fc1"),
        (r"^transformer_blocks\.(\d+)\.ff\.net\.2$", r"joint_blocks.\1.x_block.mlp.fc2"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj$", r"joint_blocks.\1.context_block.mlp.fc1"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.net\.2$", r"joint_blocks.\1.context_block.mlp.fc2"),
        (r"^transformer_blocks\.(\d+)\.norm1\.linear$", r"joint_blocks.\1.x_block.adaLN_modulation.1"),
        (r"^transformer_blocks\.(\d+)\.norm1_context\.linear$", r"joint_blocks.\1.context_block.adaLN_modulation.1"),
        (r"^time_text_embed\.timestep_embedder\.linear_1$", "t_embedder.mlp.0"),
        (r"^time_text_embed\.timestep_embedder\.linear_2$", "t_embedder.mlp.2"),
        (r"^time_text_embed\.text_embedder\.linear_1$", "y_embedder.mlp.0"),
        (r"^time_text_embed\.text_embedder\.linear_2$", "y_embedder.mlp.2"),
        (r"^context_embedder$", "context_embedder"),
        (r"^proj_out$", "final_layer.linear"),
        (r"^norm_out\.linear$", "final_layer.adaLN_modulation.1"),
    ),
    "qwen_image": ((r"^(.+)$", r"\1"),),
    "z_image": (
        (r"^(.+)\.attention\.to_[qkv]$", r"\1.attention.qkv"),
        (r"^(.+)\.attention\.to_out\.0$", r"\1.attention.out"),
        (r"^all_x_embedder\.2-1$", "x_embedder"),
        (r"^all_final_layer\.2-1\.(.+)$", r"final_layer.\1"),
        (r"^((?:layers|noise_refiner|context_refiner|t_embedder|cap_embedder)\..+)$", r"\1"),
    ),
    "lumina2": (
        (r"^(.+)\.attn\.to_[qkv]$", r"\1.attention.qkv"),
        (r"^(.+)\.attn\.to_out\.0$", r"\1.attention.out"),
        (r"^(.+)\.feed_forward\.linear_(\d)$", r"\1.feed_forward.w\2"),
        (r"^(.+)\.norm1\.linear$", r"\1.adaLN_modulation.1"),
        (r"^time_caption_embed\.timestep_embedder\.linear_1$", "t_embedder.mlp.0"),
        (r"^time_caption_embed\.timestep_embedder\.linear_2$", "t_embedder.mlp.2"),
        (r"^time_caption_embed\.caption_embedder\.1$", "cap_embedder.1"),
        (r"^norm_out\.linear_1$", "final_layer.adaLN_modulation.1"),
        (r"^norm_out\.linear_2$", "final_layer.linear"),
        (r"^x_embedder$", "x_embedder"),
    ),
}
_ORDER = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "proj_mlp")
# Layers that ComfyUI has no `transformer.` name for; they are found under its own names only.
_UNTRANSLATED: dict[str, str] = {"flux2": r"^time_guidance_embed\.|_modulation", "lumina2": r""}


def layout(family: str, transformer: Any) -> dict[str, Place]:
    """Returns where each linear layer of a transformer of diffusers lies in ComfyUI's weights."""
    rows = {name: module.out_features for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    weights: dict[str, list[str]] = {}
    for layer in rows:
        weights.setdefault(_weight_of(family, layer), []).append(layer)
    places = {}
    for weight, layers in weights.items():
        start = 0
        for layer in sorted(layers, key=_rank):
            places[layer] = Place(weight, start, rows[layer], _is_swapped(family, layer, transformer))
            start += rows[layer]
    return places


def _weight_of(family: str, layer: str) -> str:
    for pattern, weight in _LAYERS[family]:
        if re.search(pattern, layer):
            return re.sub(pattern, weight, layer) + ".weight"
    raise AssertionError(f"ComfyUI has no weight for {layer} of {family}")


def _rank(layer: str) -> int:
    return next((rank for rank, name in enumerate(_ORDER) if layer.endswith(name)), 0)


def _is_swapped(family: str, layer: str, transformer: Any) -> bool:
    if family not in ("flux", "flux2", "sd3"):
        return False
    # SD3's last block modulates its text stream as a last layer does: scale and shift, and no gate.
    last = f"transformer_blocks.{len(transformer.transformer_blocks) - 1}.norm1_context.linear"
    return layer == "norm_out.linear" or (family == "sd3" and layer == last)


def key_map(family: str, places: Mapping[str, Place]) -> dict[str, Place]:
    """Returns what ComfyUI looks up in a LoRA file for this model: names in the file, and what they change."""
    rows: dict[str, int] = {}
    for place in places.values():
        rows[place.weight] = rows.get(place.weight, 0) + place.length
    own = {"diffusion_model." + name.removesuffix(".weight"): Place(name, 0, length) for name, length in rows.items()}
    untranslated = _UNTRANSLATED.get(family, r"^$")
    known = {layer: place for layer, place in places.items() if not re.search(untranslated, layer)}
    translated = {f"transformer.{layer}": place for layer, place in known.items()}
    if family == "z_image":  # Here ComfyUI takes diffusers' names with its own prefix too.
        translated |= {f"diffusion_model.{layer}": place for layer, place in known.items()}
    return own | translated


def to_comfyui(layers: Mapping[str, Tensor], places: Mapping[str, Place]) -> dict[str, Tensor]:
    """Returns ComfyUI's weights of the weights of diffusers' layers."""
    weights: dict[str, Tensor] = {}
    for layer, place in sorted(places.items(), key=lambda item: item[1].start):
        rows = _swap(layers[layer]) if place.swapped else layers[layer]
        weights[place.weight] = torch.cat([weights[place.weight], rows]) if place.weight in weights else rows.clone()
    return weights


def from_comfyui(weights: Mapping[str, Tensor], places: Mapping[str, Place]) -> dict[str, Tensor]:
    """Returns the weights of diffusers' layers of ComfyUI's weights."""
    layers = {}
    for layer, place in places.items():
        rows = weights[place.weight][place.start : place.start + place.length]
        layers[layer] = _swap(rows) if place.swapped else rows
    return layers


def patch(weights: dict[str, Tensor], file: Mapping[str, Tensor], keys: Mapping[str, Place]) -> None:
    """Adds a LoRA file to the weights as ComfyUI does; a name in the file that it does not know fails the test.

    weight[rows] += alpha/rank * (up @ down), rank being the rows of down; without an alpha the factor is 1.
    """
    known = set()
    for key, place in keys.items():
        if f"{key}.lora_B.weight" not in file:
            continue
        up, down = file[f"{key}.lora_B.weight"], file[f"{key}.lora_A.weight"]
        scale = float(file[f"{key}.alpha"]) / down.shape[0] if f"{key}.alpha" in file else 1.0
        change = scale * (up @ down)
        weights[place.weight][place.start : place.start + place.length] += _swap(change) if place.swapped else change
        known |= {f"{key}.lora_A.weight", f"{key}.lora_B.weight", f"{key}.alpha"}
    assert not set(file) - known, f"lora keys not loaded: {sorted(set(file) - known)}"


def _swap(rows: Tensor) -> Tensor:
    first, second = rows.chunk(2)
    return torch.cat([second, first])
