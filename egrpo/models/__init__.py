"""Base models behind one interface, `egrpo.models.adapter`; a module for each family.

`load_model` is the way in: it resolves a spec's `base_model` to a folder or a repository and builds the adapter of
its family.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from egrpo.catalogue import MODELS, ModelEntry
from egrpo.config import HubModel, TrainSpec
from egrpo.errors import ModelError
from egrpo.export.comfyui_keys import check_formats

if TYPE_CHECKING:
    import torch

    from egrpo.models.adapter import ModelAdapter

# Where the adapter of a pipeline class lives. Imported when a spec needs it, since each module imports its pipeline.
FAMILIES: dict[str, tuple[str, str]] = {
    "FluxPipeline": ("egrpo.models.flux", "FluxAdapter"),
    "Flux2KleinPipeline": ("egrpo.models.flux2_klein", "Flux2KleinAdapter"),
    "Lumina2Pipeline": ("egrpo.models.lumina2", "Lumina2Adapter"),
    "QwenImagePipeline": ("egrpo.models.qwen_image", "QwenImageAdapter"),
    "SanaPipeline": ("egrpo.models.sana", "SanaAdapter"),
    "StableDiffusion3Pipeline": ("egrpo.models.sd3", "SD3Adapter"),
    "ZImagePipeline": ("egrpo.models.z_image", "ZImageAdapter"),
}


def load_model(spec: TrainSpec, device: torch.device) -> ModelAdapter:
    """Returns the base model of a spec, frozen, at the spec's resolution and precision.

    Raises:
        ModelError: it is not there, or is of no family that is known.
        ConfigError: its family cannot be exported in a format of the spec.
    """
    import torch

    from egrpo.precision import autocast_forward, choose_precision

    entry, source, revision = resolve(spec.base_model)
    adapter = family_of(source, revision)
    check_formats(spec.export.formats, adapter.family)
    dtype, is_full = choose_precision(spec.training.precision, device).dtype, spec.training.mode == "full"
    model = adapter.load(
        source,
        revision=revision,
        dtype=dtype,
        transformer_dtype=torch.float32 if is_full else dtype,
        device=device,
        height=spec.height or (entry.height if entry else None),
        width=spec.width or (entry.width if entry else None),
        max_sequence_length=entry.max_sequence_length if entry else None,
    )
    if is_full and dtype != torch.float32:
        autocast_forward(model.transformer, dtype, device)
    return model


def family_of(source: str, revision: str | None) -> type[ModelAdapter]:
    """Returns the adapter class for the pipeline class that a model's `model_index.json` names.

    Raises:
        ModelGatedError: the repository is gated and this machine has no access.
        ModelError: there is no such file, or no family for what it names.
    """
    from egrpo.models.loading import read_index

    name = read_index(source, revision).get("_class_name")
    if name not in FAMILIES:
        raise ModelError(
            f"base model {source!r} cannot be loaded: its model_index.json names the pipeline {name!r}; "
            f"allowed: {sorted(FAMILIES)}"
        )
    module, adapter = FAMILIES[name]
    found: type[ModelAdapter] = getattr(import_module(module), adapter)
    return found


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
