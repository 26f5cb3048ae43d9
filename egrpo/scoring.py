"""Scores of decoded images under all rewards of a spec: image by image, and group by group where a reward asks for it.

Latents are decoded a batch at a time. A group-wise reward needs whole groups, and a batch may begin or end in the
middle of one: its images wait until the group is complete.
Axis letters: R row (any image), B row of one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from egrpo.config import TrainSpec
from egrpo.models.adapter import ModelAdapter
from egrpo.rewards import AnyReward, BoolArray, FloatArray, GroupReward, RewardBatch, load_reward, score, score_groups
from egrpo.rollout import Sampler

# The group of an image that is in none: group-wise rewards do not see it.
NO_GROUP = -1


@dataclass(frozen=True)
class WeightedReward:
    """A reward of the spec and its weight; held-out rewards have weight 0 and are only measured."""

    reward: AnyReward
    weight: float

    @property
    def is_held_out(self) -> bool:
        """Whether the reward is measured and never optimised."""
        return self.weight == 0

    @property
    def label(self) -> str:
        """Its name in metrics, samples and reports: held-out rewards have the prefix `held_out_`."""
        return f"held_out_{self.reward.name}" if self.is_held_out else self.reward.name


def load_rewards(spec: TrainSpec) -> list[WeightedReward]:
    """Returns the rewards of a spec, the optimised ones first."""
    optimised = [WeightedReward(load_reward(component), component.weight) for component in spec.reward.components]
    return optimised + [WeightedReward(load_reward(component), 0.0) for component in spec.reward.held_out]


@dataclass(frozen=True)
class Scores:
    """Scores of a batch of images under several rewards.

    Args:
        reward_R: the weighted mean over the optimised rewards; of an image in no group, over those that are not
            group-wise (NaN if all are).
        passed_R: whether all optimised rewards passed.
        by_reward: scores [R] by reward label; NaN under a group-wise reward for an image in no group.
        optimised: scores [R] of the optimised rewards in their order.
        metrics: what rewards report beside their scores, [R] by `label_metric`.
    """

    reward_R: FloatArray
    passed_R: BoolArray
    by_reward: dict[str, FloatArray]
    optimised: tuple[FloatArray, ...]
    metrics: dict[str, FloatArray] = field(default_factory=dict)

    def of_row(self, row: int) -> dict[str, float]:
        """Returns everything that is known of one image, by name."""
        return {name: float(values[row]) for name, values in {**self.by_reward, **self.metrics}.items()}


def training_metrics(scores: Scores, rows: slice, num_flat_by_reward: Sequence[int]) -> dict[str, float]:
    """Returns mean, std, best, worst and the number of flat groups of every optimised reward, of some rows."""
    found: dict[str, float] = {}
    for (label, values_R), num_flat in zip(scores.by_reward.items(), num_flat_by_reward, strict=True):
        values = values_R[rows]
        numbers = {"mean": values.mean(), "std": values.std(), "best": values.max(), "worst": values.min()}
        found |= {f"reward/{label}/{name}": float(value) for name, value in numbers.items()}
        found[f"reward/{label}/flat_groups"] = float(num_flat)
    return found


def images_in_batches(model: ModelAdapter, latents_RNC: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """Yields decoded images and the rows that they are, a batch at a time."""
    for start in range(0, len(latents_RNC), model.decode_batch_size):
        rows = slice(start, min(start + model.decode_batch_size, len(latents_RNC)))
        yield model.decode(latents_RNC[rows]), rows


def score_latents(
    model: ModelAdapter,
    sampler: Sampler,
    rewards: Sequence[WeightedReward],
    latents_RNC: Tensor,
    prompts_R: Sequence[str],
    group_R: Sequence[int],
    keep: Sequence[int] = (),
) -> tuple[Scores, Tensor]:
    """Decodes and scores latents in batches; returns the scores and the images of the rows to keep, on the CPU.

    `group_R` says which group every row belongs to, or `NO_GROUP`. The rows of a group may lie in several batches, but
    the nearer they are, the fewer images wait for the rest of their group.
    """
    scoring = _Scoring(rewards, prompts_R, group_R)
    kept = []
    for images, rows in images_in_batches(model, latents_RNC):
        sampler.check_stop()
        scoring.add(images, list(range(rows.start, rows.stop)))
        kept += [images[row - rows.start].cpu() for row in keep if rows.start <= row < rows.stop]
    images_SCHW = torch.stack(kept) if kept else torch.empty(0, 3, model.height, model.width)
    return scoring.scores(), images_SCHW


class _Scoring:
    """Scores images as they are decoded."""

    def __init__(self, rewards: Sequence[WeightedReward], prompts_R: Sequence[str], group_R: Sequence[int]) -> None:
        self._prompts_R, self._group_R = prompts_R, group_R
        self._columns = [(weighted, _Column(len(prompts_R))) for weighted in rewards]
        self._waiting: dict[int, list[tuple[int, Tensor]]] = {}
        self._sizes = Counter(group_R)
        self._is_group_wise = any(isinstance(weighted.reward, GroupReward) for weighted in rewards)

    def add(self, images_BCHW: Tensor, rows: list[int]) -> None:
        """Scores a batch, and the groups that it completes."""
        prompts = [self._prompts_R[row] for row in rows]
        for weighted, column in self._columns:
            if not isinstance(weighted.reward, GroupReward):
                column.fill(rows, score(weighted.reward, images_BCHW, prompts))
        if self._is_group_wise and (whole := self._completed(images_BCHW, rows)):
            self._score_groups([row for row, _ in whole], torch.stack([image for _, image in whole]))

    def _completed(self, images_BCHW: Tensor, rows: list[int]) -> list[tuple[int, Tensor]]:
        """Returns rows and images of the groups that this batch completes, and keeps the others'."""
        whole = []
        for row, image in zip(rows, images_BCHW, strict=True):
            group = self._group_R[row]
            if group == NO_GROUP:
                continue
            self._waiting.setdefault(group, []).append((row, image))
            if len(self._waiting[group]) == self._sizes[group]:
                whole += self._waiting.pop(group)
        return whole

    def _score_groups(self, rows: list[int], images_BCHW: Tensor) -> None:
        prompts, groups = [self._prompts_R[row] for row in rows], [self._group_R[row] for row in rows]
        for weighted, column in self._columns:
            if isinstance(weighted.reward, GroupReward):
                column.fill(rows, score_groups(weighted.reward, images_BCHW, prompts, groups))

    def scores(self) -> Scores:
        """Returns the scores of all images."""
        total, weights = np.zeros(len(self._prompts_R)), np.zeros(len(self._prompts_R))
        passed = np.ones(len(self._prompts_R), dtype=bool)
        optimised = [(weighted, column) for weighted, column in self._columns if not weighted.is_held_out]
        for weighted, column in optimised:
            known = np.isfinite(column.scores)
            total += np.where(known, weighted.weight * column.scores, 0.0)
            weights += weighted.weight * known
            passed &= column.passed
        return Scores(
            np.divide(total, weights, out=np.full(len(total), np.nan), where=weights > 0),
            passed,
            {weighted.label: column.scores for weighted, column in self._columns},
            tuple(column.scores for _, column in optimised),
            {f"{w.label}_{name}": values for w, column in self._columns for name, values in column.metrics.items()},
        )


class _Column:
    """What one reward has said so far; what it has not scored is NaN, and passes."""

    def __init__(self, size: int) -> None:
        self.scores: FloatArray = np.full(size, np.nan)
        self.passed: BoolArray = np.ones(size, dtype=bool)
        self.metrics: dict[str, FloatArray] = {}

    def fill(self, rows: list[int], batch: RewardBatch) -> None:
        self.scores[rows] = batch.scores
        self.passed[rows] = batch.passed
        for name, values in batch.metrics.items():
            self.metrics.setdefault(name, np.full(len(self.scores), np.nan))[rows] = values
