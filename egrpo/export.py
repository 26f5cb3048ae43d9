"""The adapter as others load it: diffusers' `pytorch_lora_weights.safetensors` with the LoRA metadata.

Rank and alpha travel in the file's metadata; from it stock `pipeline.load_lora_weights` takes the scale
alpha/rank. Without it diffusers would take alpha = rank.
"""

from __future__ import annotations

import json
from pathlib import Path

from peft import get_peft_model_state_dict

from egrpo.lora import ADAPTER
from egrpo.models.adapter import ModelAdapter

FILE = "pytorch_lora_weights.safetensors"


def export_adapter(model: ModelAdapter, folder: Path) -> list[str]:
    """Writes the adapter that is in place in diffusers' format; returns the file names.

    The same adapter is the same file, byte for byte, in every process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    transformer = model.transformer
    metadata = transformer.peft_config[ADAPTER].to_dict()
    # peft keeps the targets as a set, whose order changes from process to process.
    metadata["target_modules"] = sorted(metadata["target_modules"])
    model.pipeline_class.save_lora_weights(
        save_directory=str(folder),
        transformer_lora_layers=get_peft_model_state_dict(transformer, adapter_name=ADAPTER),
        transformer_lora_adapter_metadata=metadata,
        weight_name=FILE,
    )
    _sort_metadata(folder / FILE)
    return [FILE]


def _sort_metadata(path: Path) -> None:
    """Rewrites a safetensors file with its metadata in order; safetensors writes them in that of a random hash.

    The header is JSON behind its length in 8 bytes, padded with spaces so that the data is aligned; in another order
    it has the same length.
    """
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
