"""Evaluation: fixed prompts, fixed seeds, plain ODE, deployed weights; and what a difference before/after is worth.

Axis letters: P prompt, M image of a prompt, R row (P*M of them, prompts outermost).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from egrpo.config import TrainSpec
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.processes import Processes
from egrpo.rewards import FloatArray
from egrpo.rollout import Sampler
from egrpo.scoring import Scores, WeightedReward, images_in_batches, score_latents

# Images of an evaluation that are kept as files: the first image of the first prompts, and those of highest and lowest
# reward.
MAX_SAMPLES = 16
MAX_EXTREMES = 4
_BOOTSTRAP_DRAWS = 10_000


@dataclass(frozen=True)
class EvaluationSet:
    """What every evaluation of a run draws: the same prompts, initial latents and schedule."""

    prompts: tuple[str, ...]
    images_per_prompt: int
    seeds_R: tuple[int, ...]
    x_RNC: Tensor
    embeds: PromptEmbeds
    sigmas: tuple[float, ...]

    @classmethod
    def of(cls, spec: TrainSpec, model: ModelAdapter, prompts: Sequence[str], embeds: PromptEmbeds) -> Self:
        """Returns the evaluation set of a spec; its seeds are consecutive, so that anyone can draw the same images."""
        first, count = spec.evaluation.seed, len(prompts) * spec.evaluation.images_per_prompt
        seeds = tuple(range(first, first + count))
        sigmas = model.sigmas(spec.evaluation.sampling_steps or spec.method.sampling_steps, spec.method.shift)
        x_RNC = model.initial_latents(list(seeds))
        return cls(tuple(prompts), spec.evaluation.images_per_prompt, seeds, x_RNC, embeds, tuple(sigmas))

    @property
    def prompt_of_row(self) -> list[int]:
        """Index of the prompt of every row."""
        return [row // self.images_per_prompt for row in range(len(self.seeds_R))]

    @property
    def sample_rows(self) -> list[int]:
        """Rows that are kept as image files."""
        return [p * self.images_per_prompt for p in range(min(MAX_SAMPLES, len(self.prompts)))]


@dataclass(frozen=True)
class Extreme:
    """An image of an evaluation that is kept for its reward: kind `best` or `worst`, rank 0 being the most extreme."""

    kind: str
    rank: int
    row: int
    image_CHW: Tensor


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: per-image scores, the kept images, float32 [S, 3, H, W], and the best and worst ones."""

    scores: Scores
    images_SCHW: Tensor
    extremes: tuple[Extreme, ...] = ()

    @property
    def reward(self) -> float:
        """Mean reward over all images."""
        return float(self.scores.reward_R.mean())

    @property
    def strict_accuracy(self) -> float:
        """Share of images that passed."""
        return float(self.scores.passed_R.mean())

    @property
    def reward_means(self) -> dict[str, float]:
        """Mean of every reward, by label."""
        return {name: float(values.mean()) for name, values in self.scores.by_reward.items()}

    def by_prompt(self, images_per_prompt: int) -> dict[str, list[list[float]]]:
        """Returns [prompt][image] numbers by name: `reward`, `passed`, and `reward/<label>` of every reward."""
        rewards = {f"reward/{name}": values for name, values in self.scores.by_reward.items()}
        rows = {"reward": self.scores.reward_R, "passed": self.scores.passed_R.astype(float), **rewards}
        return {name: values.reshape(-1, images_per_prompt).tolist() for name, values in rows.items()}

    def metrics(self) -> dict[str, float]:
        """Returns the means by metric name."""
        known = {**self.scores.by_reward, **self.scores.metrics}
        means = {f"eval_{name}": float(values.mean()) for name, values in known.items()}
        return {"eval_reward": self.reward, "eval_strict_accuracy": self.strict_accuracy, **means}


def evaluate(
    model: ModelAdapter,
    sampler: Sampler,
    rewards: Sequence[WeightedReward],
    evaluation_set: EvaluationSet,
    processes: Processes | None = None,
) -> Evaluation:
    """Draws and scores the evaluation set with the weights that are in place; the images of a prompt are a group.

    Several processes share the drawing, nearly all of the work; each scores all images.
    """
    prompt_R = torch.tensor(evaluation_set.prompt_of_row, device=model.device)
    latents = (processes or Processes()).in_shares(
        len(prompt_R),
        lambda rows: sampler.ode(
            evaluation_set.x_RNC[rows], evaluation_set.sigmas, evaluation_set.embeds, prompt_R[rows]
        ),
    )
    prompts = [evaluation_set.prompts[p] for p in evaluation_set.prompt_of_row]
    groups, keep = evaluation_set.prompt_of_row, evaluation_set.sample_rows
    scores, images = score_latents(model, sampler, rewards, latents, prompts, groups, keep)
    return Evaluation(scores, images, _extremes(model, scores.reward_R, latents))


def _extremes(model: ModelAdapter, reward_R: FloatArray, latents_RNC: Tensor) -> tuple[Extreme, ...]:
    """Decodes the images of highest and lowest reward once more: while scoring, nobody knew which they would be."""
    order, count = np.argsort(-reward_R, kind="stable").tolist(), min(MAX_EXTREMES, len(reward_R) // 2)
    chosen = [("best", rank, row) for rank, row in enumerate(order[:count])]
    chosen += [("worst", rank, row) for rank, row in enumerate(order[::-1][:count])]
    latents = latents_RNC[[row for _, _, row in chosen]]
    images = [image.cpu() for batch, _ in images_in_batches(model, latents) for image in batch]
    return tuple(Extreme(*place, image) for place, image in zip(chosen, images, strict=True))


def draw_samples(model: ModelAdapter, sampler: Sampler, evaluation_set: EvaluationSet) -> Tensor:
    """Returns only the kept images of an evaluation, float32 [S, 3, H, W], with the weights that are in place."""
    rows = evaluation_set.sample_rows
    prompt_R = torch.tensor([evaluation_set.prompt_of_row[row] for row in rows], device=model.device)
    latents = sampler.ode(evaluation_set.x_RNC[rows], evaluation_set.sigmas, evaluation_set.embeds, prompt_R)
    return torch.cat([images.cpu() for images, _ in images_in_batches(model, latents)])


def save_png(image_CHW: Tensor, path: Path) -> None:
    """Writes an image in [0, 1] as PNG, rounded to 8 bits as diffusers does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image_CHW.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(path)


def paired_interval(
    before_PM: FloatArray, after_PM: FloatArray, seed: int = 0, *, tail: float = 0.025
) -> tuple[float, float]:
    """Returns the bootstrap interval of the mean paired difference, resampling prompts: 95 % of it unless told else.

    Images of one prompt are no independent evidence, so whole prompts are drawn; with a single prompt, its images are.
    """
    delta_PM = np.asarray(after_PM) - np.asarray(before_PM)
    units = delta_PM.mean(axis=1) if len(delta_PM) > 1 else delta_PM[0]
    rng = np.random.default_rng(seed)
    chunks = [
        units[rng.integers(len(units), size=(100, len(units)))].mean(axis=1) for _ in range(_BOOTSTRAP_DRAWS // 100)
    ]
    low, high = np.quantile(np.concatenate(chunks), [tail, 1 - tail])
    return float(low), float(high)
