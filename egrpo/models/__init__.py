"""Base models behind one interface: `flux` is the first family.

`load_model` is the way in: it resolves a spec's `base_model` to a folder or a repository and builds the adapter of
its family.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from egrpo.catalogue import MODELS, ModelEntry
from egrpo.config import HubModel, TrainSpec

if TYPE_CHECKING:
    import torch

    from egrpo.models.flux import FluxAdapter


def load_model(spec: TrainSpec, device: torch.device) -> FluxAdapter:
    """Returns the base model of a spec, frozen, at the spec's resolution and precision.

    Raises:
        ModelError: it is not there, or is not what its family expects.
    """
    import torch

    from egrpo.models.flux import FluxAdapter

    entry, source, revision = resolve(spec.base_model)
    return FluxAdapter.load(
        source,
        revision=revision,
        dtype=torch.bfloat16 if spec.training.precision == "bfloat16" else torch.float32,
        device=device,
        height=spec.height or (entry.height if entry else None),
        width=spec.width or (entry.width if entry else None),
        max_sequence_length=entry.max_sequence_length if entry else None,
    )


def resolve(base_model: str | HubModel) -> tuple[ModelEntry | None, str, str | None]:
    """Returns the catalogue entry, if it is one, and the folder or repository and its revision."""
    if isinstance(base_model, HubModel):
        return None, base_model.repo, base_model.revision
    entry = MODELS.get(base_model)
    if entry is None:
        return None, str(Path(base_model)), None
    if entry.folder is not None:
        return entry, str(entry.folder), None
    assert entry.repo is not None
    return entry, entry.repo, entry.revision
