"""What may be named in a spec: base models and rewards. Free of torch, so that the API can list it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from egrpo.errors import ConfigError


class ModelEntry(BaseModel):
    """A base model that jobs may name.

    Either `path` (a folder inside the package, relative to `egrpo/`) or `repo` and `revision` says where it is.
    `max_sequence_length` is the number of T5 tokens; None takes the second tokenizer's own maximum.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    family: Literal["flux"]
    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    width: int
    height: int
    max_sequence_length: int | None = None
    default_lora_targets: str = "attention"
    licence: str
    description: str

    @property
    def folder(self) -> Path | None:
        """The model's folder on this machine, for a model that is part of the package."""
        if self.path is None:
            return None
        package = find_spec("egrpo")
        assert package is not None
        assert package.submodule_search_locations is not None
        return Path(package.submodule_search_locations[0]) / self.path


class RewardEntry(BaseModel):
    """A reward that jobs may name; `needs` says what it must have to run, in words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    description: str
    range: tuple[float, float]
    needs: tuple[str, ...] = ()


MODELS: dict[str, ModelEntry] = {
    entry.id: entry
    for entry in (
        ModelEntry(
            id="tiny-flux-shapes",
            family="flux",
            path="tiny/weights",
            width=64,
            height=64,
            default_lora_targets="attention_mlp",
            licence="Apache-2.0",
            description="A few million parameters in FLUX.1's layout that draw one or two coloured shapes at 64x64; "
            "trained in this repository, runs anywhere.",
        ),
    )
}

REWARDS: dict[str, RewardEntry] = {
    entry.type: entry
    for entry in (
        RewardEntry(
            type="shapes",
            description="Verifiable from pixels: every named object is there with its colour and shape, the relation "
            "holds, nothing else is drawn. Continuous in [0, 1], passed when everything holds.",
            range=(0.0, 1.0),
        ),
        RewardEntry(
            type="compressibility",
            description="Small as a JPEG: 2 / (2 + bits per pixel). Looks at no prompt; option `quality` of the JPEG.",
            range=(0.0, 1.0),
        ),
        RewardEntry(
            type="incompressibility",
            description="Large as a JPEG: bits per pixel / (2 + bits per pixel). Looks at no prompt; option `quality`.",
            range=(0.0, 1.0),
        ),
        RewardEntry(
            type="diversity",
            description="Mean distance to the other images of the group, as averages over `grid` x `grid` cells: "
            "against a policy that draws one picture only. Looks at no prompt, so it goes with a reward that does.",
            range=(0.0, 1.0),
        ),
    )
}


def model_entry(model_id: str) -> ModelEntry:
    """Returns the catalogue's model of that id.

    Raises:
        ConfigError: there is none; the message lists the ids.
    """
    if model_id not in MODELS:
        raise ConfigError(f"base_model {model_id!r} is unknown; allowed: {sorted(MODELS)}")
    return MODELS[model_id]
