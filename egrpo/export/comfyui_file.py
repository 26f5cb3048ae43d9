"""The adapter for ComfyUI: its names, the scale folded in, alpha = rank.

ComfyUI adds alpha/rank * (up @ down) to a weight where the file has an `.alpha`, and up @ down where it has none
(Comfy-Org/ComfyUI, `comfy/weight_adapter/lora.py`, read at 6f98b15).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from egrpo.export.base_model import BaseModel
from egrpo.export.comfyui_keys import comfyui_key
from egrpo.export.files import save_tensors
from egrpo.models.adapter import ModelAdapter

FILE = "comfyui_lora.safetensors"


def write(model: ModelAdapter, tensors: Mapping[str, Tensor], config: Any, base: BaseModel | None, folder: Path) -> str:
    """Writes the file; returns its name. `tensors` are peft's: `LAYER.lora_A.weight` and `LAYER.lora_B.weight`."""
    scale = config.lora_alpha / config.r
    written: dict[str, Tensor] = {}
    for key, layers in _layers_by_key(model).items():
        if not any(f"{name}.lora_A.weight" in tensors for name in layers):
            continue
        down, up = joined(layers, tensors)
        written[f"{key}.lora_A.weight"] = down
        written[f"{key}.lora_B.weight"] = up * scale
        written[f"{key}.alpha"] = torch.tensor(float(len(down)))
    save_tensors(written, folder / FILE, _metadata(config, base))
    return FILE


def _layers_by_key(model: ModelAdapter) -> dict[str, dict[str, int]]:
    """Every key that the family has, with the layers of diffusers that are its weight, in order, and their rows."""
    keys: dict[str, dict[str, int]] = {}
    for name, module in model.transformer.named_modules():
        if isinstance(module, nn.Linear) and ".lora_" not in name:
            layer = name.removesuffix(".base_layer")
            keys.setdefault(comfyui_key(model.family, layer), {})[layer] = module.out_features
    return keys


def joined(layers: Mapping[str, int], tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns down [r, in] and up [out, r] of one weight of ComfyUI.

    Where it is several layers of diffusers below each other, down holds the matrices of all of them below each other
    and up has theirs as blocks on its diagonal: up @ down is then each layer's own product in its own rows. A layer
    without an adapter has rows of zeros.
    """
    adapted = [name for name in layers if f"{name}.lora_A.weight" in tensors]
    down = torch.cat([tensors[f"{name}.lora_A.weight"].detach().float() for name in adapted])
    up = torch.zeros(sum(layers.values()), len(down))
    row = column = 0
    for name, num_rows in layers.items():
        if name in adapted:
            block = tensors[f"{name}.lora_B.weight"]
            up[row : row + num_rows, column : column + block.shape[1]] = block.detach().float()
            column += block.shape[1]
        row += num_rows
    return down.cpu(), up


def _metadata(config: Any, base: BaseModel | None) -> dict[str, str]:
    """What a person who finds the file wants to know; nothing reads the scale from it, and the numbers say so."""
    found = {} if base is None else {"base_model": base.name, "base_model_revision": base.revision or ""}
    return {
        **found,
        "format": "pt",
        "rank": str(config.r),
        "alpha": str(config.r),
        "trained_alpha": str(config.lora_alpha),
        "scale": "folded into lora_B",
    }
