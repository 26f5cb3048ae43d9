"""The trained adapter, in the formats that others load.

- `diffusers`: `pytorch_lora_weights.safetensors`, for `pipeline.load_lora_weights(folder)`. Rank and alpha travel in
  the file's metadata, from which diffusers takes the scale alpha/rank; without them it would take alpha = rank.
- `peft`: a folder for `peft.PeftModel.from_pretrained(transformer, folder)`; rank and alpha are in its config.
- `comfyui`: one file in ComfyUI's names. ComfyUI takes alpha from tensors and reads no metadata, so the scale is
  multiplied into the second matrix and alpha is the rank: whoever reads alpha and whoever does not get the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from torch import Tensor

from egrpo.export import comfyui_file, peft_folder
from egrpo.export.base_model import BaseModel
from egrpo.export.files import sort_metadata
from egrpo.lora import ADAPTER
from egrpo.models.adapter import ModelAdapter

FILE = "pytorch_lora_weights.safetensors"
PEFT_FOLDER = "peft"


def write_formats(model: ModelAdapter, folder: Path, formats: Sequence[str], base: BaseModel | None) -> list[str]:
    """Writes the adapter that is in place; returns the names of the files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = get_peft_model_state_dict(model.transformer, adapter_name=ADAPTER)
    config = model.transformer.peft_config[ADAPTER]
    files = []
    if "diffusers" in formats:
        _write_diffusers(model, tensors, config, folder)
        files.append(FILE)
    if "peft" in formats:
        names = peft_folder.write(tensors, config, type(model.transformer), base, folder / PEFT_FOLDER)
        files += [f"{PEFT_FOLDER}/{name}" for name in names]
    if "comfyui" in formats:
        files.append(comfyui_file.write(model, tensors, config, base, folder))
    return files


def _write_diffusers(model: ModelAdapter, tensors: dict[str, Tensor], config: Any, folder: Path) -> None:
    metadata = config.to_dict()
    # peft keeps the targets as a set, whose order changes from process to process.
    metadata["target_modules"] = sorted(metadata["target_modules"])
    model.pipeline_class.save_lora_weights(
        save_directory=str(folder),
        transformer_lora_layers=tensors,
        transformer_lora_adapter_metadata=metadata,
        weight_name=FILE,
    )
    sort_metadata(folder / FILE)
