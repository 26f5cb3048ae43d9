"""The adapter as others load it: diffusers' `pytorch_lora_weights.safetensors` with the LoRA metadata.

Rank and alpha travel in the file's metadata; from it stock `FluxPipeline.load_lora_weights` takes the scale
alpha/rank. Without it diffusers would take alpha = rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import FluxPipeline
from peft import get_peft_model_state_dict

from egrpo.lora import ADAPTER

FILE = "pytorch_lora_weights.safetensors"


def export_adapter(transformer: Any, folder: Path) -> list[str]:
    """Writes the adapter that is in place in diffusers' format; returns the file names."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = transformer.peft_config[ADAPTER].to_dict()
    # peft keeps a set, whose order changes from process to process; the same adapter must be the same file.
    metadata["target_modules"] = sorted(metadata["target_modules"])
    FluxPipeline.save_lora_weights(
        save_directory=str(folder),
        transformer_lora_layers=get_peft_model_state_dict(transformer, adapter_name=ADAPTER),
        transformer_lora_adapter_metadata=metadata,
        weight_name=FILE,
    )
    return [FILE]
