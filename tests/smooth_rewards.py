"""Rewards without steps in place of those of JPEG files, for runs that agree although they add in another order.

A file has whole bytes. Where rounding, which each kind of CPU does in its own way, changes the last bit of a pixel, a
file may have a byte more, and the advantages of its group move by a percent.

`python smooth_rewards.py train …` is `python -m egrpo train …` with these rewards.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from egrpo.rewards import LOADERS, RewardBatch

if TYPE_CHECKING:
    from torch import Tensor

RED, GREEN, BLUE = range(3)
FLAT_PROMPT = "a blue square"


class Tint:
    """How much of one colour and how little of blue an image has; of one prompt all images score the same."""

    range = (0.0, 1.0)

    def __init__(self, name: str, colour: int) -> None:
        self.name = name
        self._colour = colour

    def __call__(self, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
        """Scores a batch."""
        mean_BC = images_BCHW.double().mean(dim=(2, 3)).cpu().numpy()
        scores = 0.5 + (mean_BC[:, self._colour] - mean_BC[:, BLUE]) / 2
        is_flat = np.array([prompt == FLAT_PROMPT for prompt in prompts])
        return RewardBatch(np.where(is_flat, 0.5, scores), np.ones(len(prompts), dtype=bool))


SMOOTH: dict[str, Callable[[Any], Tint]] = {
    "incompressibility": lambda component: Tint(component.type, RED),
    "compressibility": lambda component: Tint(component.type, GREEN),
}


if __name__ == "__main__":
    LOADERS.update(SMOOTH)
    runpy.run_module("egrpo", run_name="__main__")
