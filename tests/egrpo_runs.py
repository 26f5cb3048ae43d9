"""Short training runs on the random model, for tests: a spec, a reward that needs nothing, and a stop at will."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from egrpo.config import TrainSpec, parse_spec
from egrpo.errors import StopRequested
from egrpo.rewards import RewardBatch

if TYPE_CHECKING:
    from torch import Tensor

PROMPTS = ["a red circle", "a blue square", "a green triangle", "a yellow circle", "a red square", "a blue circle"]


class Redness:
    """How much redder than blue an image is; passed above one half. Continuous, so groups are never flat."""

    name = "redness"
    range = (0.0, 1.0)

    def __call__(self, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
        """Scores a batch."""
        scores = (0.5 + (images_BCHW[:, 0] - images_BCHW[:, 2]).mean(dim=(1, 2)) / 2).double().cpu().numpy()
        return RewardBatch(scores, scores > 0.5, {"green": images_BCHW[:, 1].mean(dim=(1, 2)).double().cpu().numpy()})


class Constant(Redness):
    """The same score for every image."""

    name = "constant"

    def __call__(self, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
        """Scores a batch."""
        return RewardBatch(np.full(len(prompts), 0.25), np.zeros(len(prompts), dtype=bool))


def spec_document(model: Path, **sections: Any) -> dict[str, Any]:
    """Returns the document of a run of four optimizer steps, with sections merged in."""
    document: dict[str, Any] = {
        "base_model": str(model),
        "prompts": {"inline": PROMPTS},
        "reward": {"components": [{"type": "shapes"}]},
        "method": {"sampling_steps": 6, "shift": 3.0, "group_size": 3, "active_steps": [0, 2, 3]},
        "training": {"steps": 4, "prompts_per_update": 2, "learning_rate": 1e-3, "lora": {"rank": 2, "alpha": 5}},
        "evaluation": {"every_steps": 2, "prompts": 2, "images_per_prompt": 2},
        "checkpoint": {"every_steps": 2},
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section} if isinstance(section, dict) else section
    return document


def short_spec(model: Path, **sections: Any) -> TrainSpec:
    """Returns the spec of a short run."""
    return parse_spec(spec_document(model, **sections))


class EventPipe:
    """The events of a trainer in another process, read as they come.

    On Linux it holds one page. A trainer that is further than that ahead of its reader waits, so that a test which is
    slow at a bad moment still finds the run where it meant to stop it.
    """

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        if sys.platform == "linux":
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        self._lines = os.fdopen(reader)
        self.events: list[dict[str, Any]] = []

    def read_until(self, kind: str, **fields: Any) -> None:
        """Reads up to such an event, or to the end of the last process that writes."""
        for line in self._lines:
            event = json.loads(line)
            self.events.append(event)
            if event["type"] == kind and all(event[name] == value for name, value in fields.items()):
                return

    def close(self) -> None:
        """Reads no more."""
        self._lines.close()


def stop_after(calls: int) -> Callable[[], None]:
    """Returns a check that asks to stop at the given call."""
    seen = 0

    def check() -> None:
        nonlocal seen
        seen += 1
        if seen >= calls:
            raise StopRequested("stopped by the test")

    return check
