"""From rewards to advantages: normalised within each group, never across active steps. Numpy, float64.

Axis letters: A active step, P prompt, G member of the group. A group is one (active step, prompt): its members share
prompt, noise, latent and velocity, and differ in one Gaussian draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egrpo.rewards import BoolArray, FloatArray

EPSILON = 1e-8


@dataclass(frozen=True)
class Advantages:
    """`values_APG` and which groups had rewards all equal, `is_flat_AP`: those have zero advantages."""

    values_APG: FloatArray
    is_flat_AP: BoolArray

    @property
    def num_flat(self) -> int:
        """How many groups contribute nothing."""
        return int(self.is_flat_AP.sum())


def group_advantages(rewards_APG: FloatArray, *, std_floor: float, clip: float) -> Advantages:
    """Returns (R - mean R) / (max(std R, std_floor) + eps) per group, clamped to +-clip; 0 where rewards are all equal.

    Source: E-GRPO, arXiv 2601.00423, eq. 12; std is the population's. The floor is ours: a group whose rewards hardly
    differ has its noise amplified by a small std.
    """
    is_flat = np.ptp(rewards_APG, axis=-1) == 0
    deviation = rewards_APG - rewards_APG.mean(axis=-1, keepdims=True)
    std = rewards_APG.std(axis=-1, keepdims=True)
    values = np.clip(deviation / (np.maximum(std, std_floor) + EPSILON), -clip, clip)
    return Advantages(np.where(is_flat[..., None], 0.0, values), is_flat)


def combined_advantages(
    rewards: Sequence[FloatArray], weights: Sequence[float], *, std_floor: float, clip: float
) -> Advantages:
    """Returns the advantages of several rewards, each `rewards_APG`.

    One reward: its group advantages. Several: each normalised within the group, summed by weight, the sum scaled to
    unit std over the batch's groups that are not flat (GDPO, arXiv 2601.05242), and clamped.
    """
    parts = [group_advantages(reward, std_floor=std_floor, clip=clip) for reward in rewards]
    if len(parts) == 1:
        return parts[0]
    total = np.sum([weight * part.values_APG for weight, part in zip(weights, parts, strict=True)], axis=0)
    is_flat = np.ptp(total, axis=-1) == 0
    if is_flat.all():
        return Advantages(np.zeros_like(total), is_flat)
    scaled = np.clip(total / (total[~is_flat].std() + EPSILON), -clip, clip)
    return Advantages(np.where(is_flat[..., None], 0.0, scaled), is_flat)
