"""What is known of a run's base model, in words: its name, its revision, and the licence of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from egrpo.config import HubModel
from egrpo.models import resolve

# Identifiers of licences on the Hub, as far as bases use them; every other licence is `other` there, with a name.
_HUB_LICENCES = frozenset(
    {"apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0"}
)


@dataclass(frozen=True)
class BaseModel:
    """A base model as others may find it.

    Args:
        name: its repository, its name in the catalogue, or the folder as the spec has it.
        repo: its repository on the Hub, if it has one.
        revision: full commit in that repository.
        licence: of its weights, in its own words; None where nothing on this machine says.
        is_bundled: whether it is part of this package, found by `model_entry(name).folder`.
    """

    name: str
    repo: str | None = None
    revision: str | None = None
    licence: str | None = None
    is_bundled: bool = False

    @property
    def hub_licence(self) -> dict[str, str]:
        """The licence in the words of a model card on the Hub."""
        if self.licence is None:
            return {"license": "unknown"}
        if self.licence.lower() in _HUB_LICENCES:
            return {"license": self.licence.lower()}
        return {"license": "other", "license_name": "-".join(self.licence.lower().split())}


def describe(base_model: str | HubModel) -> BaseModel:
    """Returns what is known of the base model of a spec, without the network."""
    entry, source, revision = resolve(base_model)
    if entry is not None:
        return BaseModel(entry.repo or entry.id, entry.repo, revision, entry.licence, is_bundled=entry.repo is None)
    if isinstance(base_model, HubModel):
        return BaseModel(base_model.repo, base_model.repo, revision, _licence_of_card(_cached_card(base_model)))
    return BaseModel(source, licence=_licence_of_card(Path(source) / "README.md"))


def _cached_card(base_model: HubModel) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(base_model.repo, "README.md", revision=base_model.revision)
    return Path(path) if isinstance(path, str) else None


def _licence_of_card(path: Path | None) -> str | None:
    """Returns the licence in the front matter of a model card, if there is such a card."""
    if path is None or not path.is_file():
        return None
    parts = path.read_text(encoding="utf-8").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        matter = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    if not isinstance(matter, dict):
        return None
    licence = matter.get("license_name") or matter.get("license")
    return str(licence) if licence else None
