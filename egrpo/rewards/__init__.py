"""What a reward is, and how the rewards of a spec are loaded and called.

A reward scores decoded images against their prompts. It never sees latents, steps or groups, and normalises nothing:
that is `egrpo.advantage`. This module is free of the rewards' own dependencies: each lives in its own module and is
imported when a spec names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from egrpo.errors import ConfigError, NonFiniteError, RewardError

if TYPE_CHECKING:
    from torch import Tensor

    from egrpo.config import RewardComponent

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RewardBatch:
    """Scores of one batch of images, in the order of the images.

    Args:
        scores: float64 [B], what is optimised; higher is better.
        passed: bool [B], the strict reading: everything that the prompt asks for is there.
        metrics: further float arrays [B] by name, reported and never optimised.
    """

    scores: FloatArray
    passed: BoolArray
    metrics: Mapping[str, FloatArray] = field(default_factory=dict)


@runtime_checkable
class Reward(Protocol):
    """Scores images against prompts; deterministic, and independent of the composition of the batch."""

    name: str
    range: tuple[float, float]

    def __call__(self, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
        """Returns scores, pass flags and metrics of float32 images in [0, 1], one prompt each."""
        ...


def _shapes() -> Reward:
    from egrpo.rewards.shapes import ShapesReward

    reward: Reward = ShapesReward()
    return reward


LOADERS: dict[str, Callable[[], Reward]] = {"shapes": _shapes}


def load_reward(component: RewardComponent) -> Reward:
    """Returns the reward that a spec's component names.

    Raises:
        ConfigError: the type is unknown; the message lists the known ones.
    """
    if component.type not in LOADERS:
        raise ConfigError(f"reward type {component.type!r} is unknown; allowed: {sorted(LOADERS)}")
    return LOADERS[component.type]()


def score(reward: Reward, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
    """Calls a reward and holds it to its protocol.

    Raises:
        RewardError: the reward raised, or the shapes of its answer are wrong.
        NonFiniteError: a score is not finite; the message names reward and prompt.
    """
    try:
        batch = reward(images_BCHW, prompts)
    except Exception as error:
        raise RewardError(f"reward {reward.name!r} failed on {len(prompts)} images: {error!r}") from error
    _check(reward.name, batch, prompts)
    return batch


def _check(name: str, batch: RewardBatch, prompts: Sequence[str]) -> None:
    expected = (len(prompts),)
    for label, array in (("scores", batch.scores), ("passed", batch.passed), *batch.metrics.items()):
        if np.shape(array) != expected:
            raise RewardError(f"reward {name!r} returned {label} of shape {np.shape(array)}, expected {expected}")
    finite = np.isfinite(batch.scores)
    if not finite.all():
        index = int(np.argmin(finite))
        raise NonFiniteError(f"reward {name!r} returned {batch.scores[index]} for the prompt {prompts[index]!r}")
