"""What the catalogue says of a base model, against the adapters and the documentation."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from egrpo.catalogue import MODELS, ModelEntry
from egrpo.models import FAMILIES
from egrpo.models.adapter import ModelAdapter

DOCUMENT = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
ADAPTERS: dict[str, type[ModelAdapter]] = {
    adapter.family: adapter for adapter in (getattr(import_module(module), name) for module, name in FAMILIES.values())
}


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_every_model_has_an_adapter_that_can_do_what_is_said(entry: ModelEntry) -> None:
    adapter = ADAPTERS[entry.family]
    assert entry.default_lora_targets in adapter.lora_target_sets
    assert (entry.path is None) == (entry.repo is not None) == (entry.revision is not None)
    assert entry.width % 16 == entry.height % 16 == 0
    assert entry.guidance != "none" or entry.guidance_scale <= 1


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_every_model_is_documented(entry: ModelEntry) -> None:
    (row,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{entry.id}` |")]
    assert entry.repo is None or entry.repo in row
    assert entry.revision is None or entry.revision in row
    assert entry.licence in row


def test_every_family_is_documented() -> None:
    assert [name for name in FAMILIES if f"`{name}`" not in DOCUMENT] == []
