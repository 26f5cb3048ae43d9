"""From rewards to advantages: normalised within each group, never across active steps. Numpy, float64.

Axis letters: A active step, K granularity of the tail, P prompt, G member of the group. A group is one (active step,
granularity, prompt): its members share prompt, noise, latent and velocity, and differ in one Gaussian draw. A member
has one tail per granularity, so one score per granularity and one advantage: their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from egrpo.rewards import BoolArray, FloatArray

EPSILON = 1e-8

Combine = Literal["gdpo", "weighted_sum"]


@dataclass(frozen=True)
class Advantages:
    """`values_APG`, and which (active step, prompt) have nothing to say, `is_flat_AP`: those have zero advantages.

    `num_flat_by_reward` counts, for every reward, the (active step, prompt) where all its scores are equal.
    """

    values_APG: FloatArray
    is_flat_AP: BoolArray
    num_flat_by_reward: tuple[int, ...] = ()

    @property
    def num_flat(self) -> int:
        """How many groups contribute nothing."""
        return int(self.is_flat_AP.sum())


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of some numbers: added over processes, they give the std of all numbers."""

    count: float
    total: float
    squares: float

    @classmethod
    def of(cls, values: FloatArray) -> Self:
        """Returns the moments of an array of any shape."""
        return cls(float(values.size), float(values.sum()), float(np.square(values).sum()))

    @property
    def std(self) -> float:
        """The population's standard deviation; 0 of no numbers."""
        if self.count == 0:
            return 0.0
        return float(np.sqrt(max(0.0, self.squares / self.count - (self.total / self.count) ** 2)))


def combined_advantages(
    rewards: Sequence[FloatArray],
    weights: Sequence[float],
    *,
    combine: Combine = "gdpo",
    std_floor: float,
    clip: float,
    gather: Callable[[Moments], Moments] = lambda own: own,
) -> Advantages:
    """Returns the advantages of one or several rewards, each `rewards_AKPG`, clamped to +-clip.

    `gdpo`: every reward is normalised within its groups, the weighted sum of these is divided by its std over the
    batch's groups that are not flat (arXiv 2601.05242; its subtraction of the batch's mean is left out, since the mean
    is zero: every group's sum is). So a reward's weight does not depend on its scale, and two groups that differ in how
    many rewards vary do not come out alike. A single reward keeps its group advantages as they are.
    `weighted_sum`: the weighted mean of the rewards is normalised within its groups.

    Args:
        rewards: float64 [A, K, P, G] of every reward.
        weights: one per reward, above 0.
        combine: how several rewards become one advantage.
        std_floor: a group's deviations are divided by no less; in `weighted_sum`, in units of the weighted mean.
        clip: bound of an advantage.
        gather: turns this process's moments into those of the batch over all processes. `gdpo` of several rewards
            calls it exactly once, whatever the rewards are, so that it may be a collective operation.
    """
    flat_by_reward = tuple(int(_is_flat(reward).sum()) for reward in rewards)
    if combine == "weighted_sum" and len(rewards) > 1:
        rewards, weights = [np.average(rewards, axis=0, weights=weights)], [1.0]
    parts = [_within_groups(reward, std_floor).mean(axis=1) for reward in rewards]
    if len(parts) == 1:
        return _finished(parts[0], _is_flat(rewards[0]), flat_by_reward, clip)
    total_APG = np.sum([weight * part for weight, part in zip(weights, parts, strict=True)], axis=0)
    is_flat_AP = np.ptp(total_APG, axis=-1) == 0
    std = gather(Moments.of(total_APG[~is_flat_AP])).std
    return _finished(total_APG / (std + EPSILON), is_flat_AP, flat_by_reward, clip)


def _is_flat(rewards_AKPG: FloatArray) -> BoolArray:
    """Returns [A, P]: whether the scores are equal within every group of the active step and prompt."""
    is_flat: BoolArray = (np.ptp(rewards_AKPG, axis=-1) == 0).all(axis=1)
    return is_flat


def _within_groups(rewards_AKPG: FloatArray, std_floor: float) -> FloatArray:
    """Returns (R - mean R) / (max(std R, std_floor) + eps) per group, and 0 where the rewards are all equal.

    Source: E-GRPO, arXiv 2601.00423, eq. 12; std is the population's. The floor is ours: a group whose rewards hardly
    differ has its noise amplified by a small std.
    """
    deviation = rewards_AKPG - rewards_AKPG.mean(axis=-1, keepdims=True)
    std = rewards_AKPG.std(axis=-1, keepdims=True)
    is_flat = np.ptp(rewards_AKPG, axis=-1, keepdims=True) == 0
    normalised: FloatArray = np.where(is_flat, 0.0, deviation / (np.maximum(std, std_floor) + EPSILON))
    return normalised


def _finished(
    values_APG: FloatArray, is_flat_AP: BoolArray, num_flat_by_reward: tuple[int, ...], clip: float
) -> Advantages:
    clipped = np.where(is_flat_AP[..., None], 0.0, np.clip(values_APG, -clip, clip))
    return Advantages(clipped, is_flat_AP, num_flat_by_reward)
