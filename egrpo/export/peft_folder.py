"""The adapter as peft itself saves one: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from egrpo.export.base_model import BaseModel
from egrpo.export.files import save_json, save_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Where the adapted model sits in the model that `PeftModel.from_pretrained` makes.
_PREFIX = "base_model.model."
# What decides how the adapter acts. The rest of peft's config is left at its defaults and out of the file: an older
# peft does not know the newer names.
_FIELDS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias", "fan_in_fan_out")


def write(
    tensors: Mapping[str, Tensor], config: Any, transformer: type[Any], base: BaseModel | None, folder: Path
) -> list[str]:
    """Writes both files; returns their names."""
    document = {
        **{name: getattr(config, name) for name in _FIELDS},
        "peft_type": "LORA",
        "peft_version": config.to_dict()["peft_version"],
        "task_type": None,
        "auto_mapping": {"base_model_class": transformer.__name__, "parent_library": transformer.__module__},
        "base_model_name_or_path": base.name if base else None,
        "revision": base.revision if base else None,
        "inference_mode": True,
        "target_modules": sorted(config.target_modules),
    }
    save_json(document, folder / CONFIG)
    save_tensors({_PREFIX + name: tensor for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    return [CONFIG, WEIGHTS]
