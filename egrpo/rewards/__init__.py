"""What a reward is, and how the rewards of a spec are loaded and called.

A reward scores decoded images against their prompts. It never sees latents or steps, and normalises nothing: that is
`egrpo.advantage`. There are two kinds: a `Reward` looks at one image at a time, a `GroupReward` at the whole group that
an image belongs to. This module is free of the rewards' own dependencies: each lives in its own module and is imported
when a spec names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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
        passed: bool [B], the strict reading: everything that the prompt asks for is there. A reward that has no such
            reading passes every image.
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


@runtime_checkable
class GroupReward(Protocol):
    """Scores images in relation to the other images of their group; deterministic, and independent of other groups.

    In training a group is one (active step, granularity, prompt); in an evaluation, all images of one prompt.
    """

    name: str
    range: tuple[float, float]

    def score_groups(self, images_BCHW: Tensor, prompts: Sequence[str], group_B: Sequence[int]) -> RewardBatch:
        """Returns scores of float32 images in [0, 1]; `group_B` says to which group each belongs, none is cut."""
        ...


AnyReward = Reward | GroupReward


def _shapes(component: Any) -> AnyReward:
    from egrpo.rewards.shapes import ShapesReward

    return ShapesReward()


def _jpeg(component: Any) -> AnyReward:
    from egrpo.rewards.jpeg import JpegReward

    return JpegReward(compressible=component.type == "compressibility", quality=component.quality)


def _diversity(component: Any) -> AnyReward:
    from egrpo.rewards.diversity import DiversityReward

    return DiversityReward(component.grid)


LOADERS: dict[str, Callable[[Any], AnyReward]] = {
    "shapes": _shapes,
    "compressibility": _jpeg,
    "incompressibility": _jpeg,
    "diversity": _diversity,
}


def load_reward(component: RewardComponent) -> AnyReward:
    """Returns the reward that a spec's component names.

    Raises:
        ConfigError: the type is unknown; the message lists the known ones.
    """
    if component.type not in LOADERS:
        raise ConfigError(f"reward type {component.type!r} is unknown; allowed: {sorted(LOADERS)}")
    return LOADERS[component.type](component)


def score(reward: Reward, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
    """Calls a reward and holds it to its protocol.

    Raises:
        RewardError: the reward raised, or the shapes of its answer are wrong.
        NonFiniteError: a score is not finite; the message names reward and prompt.
    """
    return _held_to_protocol(reward.name, lambda: reward(images_BCHW, prompts), prompts)


def score_groups(
    reward: GroupReward, images_BCHW: Tensor, prompts: Sequence[str], group_B: Sequence[int]
) -> RewardBatch:
    """Calls a group-wise reward on whole groups and holds it to its protocol, as `score` does.

    Raises:
        RewardError: the reward raised, or the shapes of its answer are wrong.
        NonFiniteError: a score is not finite; the message names reward and prompt.
    """
    return _held_to_protocol(reward.name, lambda: reward.score_groups(images_BCHW, prompts, group_B), prompts)


def _held_to_protocol(name: str, call: Callable[[], RewardBatch], prompts: Sequence[str]) -> RewardBatch:
    try:
        batch = call()
    except Exception as error:
        raise RewardError(f"reward {name!r} failed on {len(prompts)} images: {error!r}") from error
    _check(name, batch, prompts)
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
