"""Full fine-tune: the transformer's own weights are trained, in float32.

The base is gone once the first update is made: what needs it again reads it from where it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from egrpo.models.adapter import ModelAdapter


def train_transformer(model: ModelAdapter) -> list[tuple[str, nn.Parameter]]:
    """Turns on the gradient of every weight of the transformer; returns them by name, in a fixed order."""
    parameters: list[tuple[str, nn.Parameter]] = sorted(model.transformer.named_parameters(), key=lambda item: item[0])
    for _, parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


@contextmanager
def reloaded_base(transformer: Any, source: str, revision: str | None) -> Iterator[None]:
    """Puts the base's weights in place inside the block; holds a second copy of the transformer in memory."""
    base = type(transformer).from_pretrained(
        source, subfolder="transformer", revision=revision, dtype=torch.float32, use_safetensors=True
    )
    of_base = dict(base.named_parameters())
    trained = {name: parameter.data for name, parameter in transformer.named_parameters()}
    try:
        for name, parameter in transformer.named_parameters():
            parameter.data = of_base[name].data.to(parameter.device)
        yield
    finally:
        for name, parameter in transformer.named_parameters():
            parameter.data = trained[name]


def export_transformer(model: ModelAdapter, folder: Path) -> list[str]:
    """Writes the transformer as diffusers keeps it: the folder takes the place of `transformer/` in a pipeline."""
    model.transformer.save_pretrained(folder, safe_serialization=True)
    # A resumed run finds its model card beside them.
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("config", "diffusion_pytorch_model")))
