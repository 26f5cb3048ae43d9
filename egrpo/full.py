"""Full fine-tune: the transformer's own weights are trained, in float32.

The base is gone once the first update is made: what needs it again reads it from where it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from egrpo.models.adapter import ModelAdapter
from egrpo.sharding import is_sharded, own_class, own_share, whole_tensors


def train_transformer(model: ModelAdapter) -> list[tuple[str, nn.Parameter]]:
    """Turns on the gradient of every weight of the transformer; returns them by name, in a fixed order."""
    parameters: list[tuple[str, nn.Parameter]] = sorted(model.transformer.named_parameters(), key=lambda item: item[0])
    for _, parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


@torch.no_grad()
def _put(transformer: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, parameter in transformer.named_parameters():
        parameter.copy_(own_share(tensors[name], parameter))


@contextmanager
def reloaded_base(transformer: Any, source: str, revision: str | None) -> Iterator[None]:
    """Puts the base's weights in place inside the block; holds a second copy of the transformer in memory."""
    base = own_class(transformer).from_pretrained(
        source, subfolder="transformer", revision=revision, dtype=torch.float32, use_safetensors=True
    )
    trained = {name: parameter.detach().clone() for name, parameter in transformer.named_parameters()}
    try:
        _put(transformer, dict(base.named_parameters()))
        yield
    finally:
        with torch.no_grad():
            for name, parameter in transformer.named_parameters():
                parameter.copy_(trained[name])


def export_transformer(model: ModelAdapter, folder: Path, *, writes: bool = True) -> list[str]:
    """Writes the transformer as diffusers keeps it: the folder takes the place of `transformer/` in a pipeline.

    Where it is sharded all processes must call this, and one `writes`; the others return no names.
    """
    transformer = model.transformer
    if is_sharded(transformer):
        tensors = whole_tensors(transformer.state_dict().items(), keep=writes)
        if writes:
            with torch.device("meta"):
                transformer = own_class(transformer).from_config(transformer.config)
            transformer.load_state_dict(tensors, assign=True)
    if not writes:
        return []
    transformer.save_pretrained(folder, safe_serialization=True)
    # A resumed run finds its model card beside them.
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("config", "diffusion_pytorch_model")))
