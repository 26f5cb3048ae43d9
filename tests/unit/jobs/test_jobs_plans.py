"""A plan that is over its limit on the model's own schedule is refused before it is queued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from egrpo.catalogue import ModelEntry
from jobs.errors import InvalidRequest
from jobs.spec import parse

SPEC: dict[str, Any] = {
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle"]},
    "reward": {"components": [{"type": "shapes"}]},
}


def test_a_plan_over_the_limit_on_the_models_own_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 3.0}))
    monkeypatch.setattr(ModelEntry, "folder", tmp_path)
    parse(SPEC)
    with pytest.raises(InvalidRequest) as caught:
        parse({**SPEC, "method": {"merging": "fixed", "fixed_length": 6}})
    (error,) = caught.value.errors
    assert (error.pointer, error.code) == ("/method/dispersion_limit", "dispersion_above_limit")
    assert "1->7 (2.91)" in error.detail


def test_a_model_whose_weights_are_elsewhere_is_left_to_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelEntry, "folder", tmp_path)
    parse({**SPEC, "method": {"merging": "fixed", "fixed_length": 6}})
