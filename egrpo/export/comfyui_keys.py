"""How ComfyUI names the layers that an adapter changes, family by family. Free of torch.

ComfyUI builds, for the model that it has loaded, a map from names in LoRA files to its own weights, and looks up
`NAME.lora_A.weight`, `NAME.lora_B.weight` and `NAME.alpha` for every name in it; what is not in the map is ignored with
a warning. Two kinds of names are used here:

- `transformer.` + the layer's name in diffusers, where ComfyUI translates it for the family. One weight of ComfyUI may
  be several layers of diffusers (query, key and value in one): its map then names the rows.
- `diffusion_model.` + ComfyUI's own name, which its map has for every weight of every model. Layers of diffusers that
  are one weight there share such a name, and their matrices are joined (`egrpo.export.comfyui_file`).

Where both would do, the choice is the one that diffusers' loader takes with alpha tensors too.

Source: Comfy-Org/ComfyUI, `comfy/lora.py` (`model_lora_keys_unet`, read at 17358c8) and `comfy/utils.py`
(`flux_to_diffusers`, `mmdit_to_diffusers`, `z_image_to_diffusers`, read at 09708ea). docs/adapters.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from egrpo.errors import ConfigError

# A family's layers that ComfyUI knows under its own names only: patterns over diffusers' names, and the keys.
_Rules = tuple[tuple[str, str], ...]

_FLUX2: _Rules = (
    (r"^time_guidance_embed\.timestep_embedder\.linear_1$", "diffusion_model.time_in.in_layer"),
    (r"^time_guidance_embed\.timestep_embedder\.linear_2$", "diffusion_model.time_in.out_layer"),
    (r"^time_guidance_embed\.guidance_embedder\.linear_1$", "diffusion_model.guidance_in.in_layer"),
    (r"^time_guidance_embed\.guidance_embedder\.linear_2$", "diffusion_model.guidance_in.out_layer"),
    (r"^((?:single|double)_stream_modulation(?:_img|_txt)?)\.linear$", r"diffusion_model.\1.lin"),
)
# Qwen-Image has the same names in both; of Z-Image ComfyUI takes diffusers' names with its own prefix.
_OWN_PREFIX: _Rules = ((r"^(.+)$", r"diffusion_model.\1"),)
# ComfyUI has one class for Lumina 2 and Z-Image and translates Z-Image's names only.
_LUMINA2: _Rules = (
    (r"^(.+\.)attn\.to_[qkv]$", r"diffusion_model.\1attention.qkv"),
    (r"^(.+\.)attn\.to_out\.0$", r"diffusion_model.\1attention.out"),
    (r"^(.+\.)feed_forward\.linear_([123])$", r"diffusion_model.\1feed_forward.w\2"),
    (r"^(.+\.)norm1\.linear$", r"diffusion_model.\1adaLN_modulation.1"),
    (r"^time_caption_embed\.timestep_embedder\.linear_1$", "diffusion_model.t_embedder.mlp.0"),
    (r"^time_caption_embed\.timestep_embedder\.linear_2$", "diffusion_model.t_embedder.mlp.2"),
    (r"^time_caption_embed\.caption_embedder\.1$", "diffusion_model.cap_embedder.1"),
    (r"^norm_out\.linear_1$", "diffusion_model.final_layer.adaLN_modulation.1"),
    (r"^norm_out\.linear_2$", "diffusion_model.final_layer.linear"),
    (r"^x_embedder$", "diffusion_model.x_embedder"),
)
_RULES: dict[str, _Rules] = {
    "flux": (),
    "sd3": (),
    "qwen_image": _OWN_PREFIX,
    "z_image": _OWN_PREFIX,
    "flux2": _FLUX2,
    "lumina2": _LUMINA2,
}


def comfyui_key(family: str, layer: str) -> str:
    """Returns the name in a ComfyUI file of a layer that diffusers calls `layer`."""
    for pattern, key in _RULES[family]:
        if re.search(pattern, layer):
            return re.sub(pattern, key, layer)
    return f"transformer.{layer}"


def refused_format(formats: Sequence[str], family: str) -> tuple[int, str] | None:
    """Returns which of the formats a family does not have, by index, and why; None if it has all."""
    if "comfyui" not in formats or family in _RULES:
        return None
    reason = f"ComfyUI has no key map for the family {family!r}; allowed: 'diffusers', 'peft'"
    return formats.index("comfyui"), reason


def check_formats(formats: Sequence[str], family: str) -> None:
    """Refuses formats that a family does not have.

    Raises:
        ConfigError: names the field, the format and what the family has.
    """
    if refused := refused_format(formats, family):
        index, reason = refused
        raise ConfigError(f"/export/formats/{index}: {reason} (got {formats[index]!r})")
