"""Evaluation: fixed prompts, fixed seeds, plain ODE, deployed weights; and what a difference before/after is worth.

Axis letters: P prompt, M image of a prompt, R row (P*M of them, prompts outermost).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from egrpo.config import TrainSpec
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.rewards import BoolArray, FloatArray, Reward, load_reward, score
from egrpo.rollout import Sampler

# Images of an evaluation that are kept as files: the first image of the first prompts.
MAX_SAMPLES = 16
_BOOTSTRAP_DRAWS = 10_000


@dataclass(frozen=True)
class WeightedReward:
    """A reward of the spec and its weight; held-out rewards have weight 0 and are only measured."""

    reward: Reward
    weight: float

    @property
    def is_held_out(self) -> bool:
        """Whether the reward is measured and never optimised."""
        return self.weight == 0


def load_rewards(spec: TrainSpec) -> list[WeightedReward]:
    """Returns the rewards of a spec, the optimised ones first."""
    optimised = [WeightedReward(load_reward(component), component.weight) for component in spec.reward.components]
    return optimised + [WeightedReward(load_reward(component), 0.0) for component in spec.reward.held_out]


@dataclass(frozen=True)
class Scores:
    """Scores of a batch of images under several rewards.

    Args:
        reward_R: the weighted mean over the optimised rewards.
        passed_R: whether all optimised rewards passed.
        by_reward: scores [R] per reward, held-out ones with the prefix `held_out_`; `reward_metric` for its metrics.
        optimised: scores [R] of the optimised rewards in their order.
    """

    reward_R: FloatArray
    passed_R: BoolArray
    by_reward: dict[str, FloatArray]
    optimised: tuple[FloatArray, ...]


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
class Evaluation:
    """One evaluation: per-image scores and the kept images, float32 [S, 3, H, W]."""

    scores: Scores
    images_SCHW: Tensor

    @property
    def reward(self) -> float:
        """Mean reward over all images."""
        return float(self.scores.reward_R.mean())

    @property
    def strict_accuracy(self) -> float:
        """Share of images that passed."""
        return float(self.scores.passed_R.mean())

    def metrics(self) -> dict[str, float]:
        """Returns the means by metric name."""
        means = {f"eval_{name}": float(values.mean()) for name, values in self.scores.by_reward.items()}
        return {"eval_reward": self.reward, "eval_strict_accuracy": self.strict_accuracy, **means}


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
    keep: Sequence[int] = (),
) -> tuple[Scores, Tensor]:
    """Decodes and scores latents in batches; returns the scores and the images of the rows to keep, on the CPU."""
    parts: list[Scores] = []
    kept = []
    for images, rows in images_in_batches(model, latents_RNC):
        sampler.check_stop()
        parts.append(score_images(rewards, images, prompts_R[rows]))
        kept += [images[row - rows.start].cpu() for row in keep if rows.start <= row < rows.stop]
    images_SCHW = torch.stack(kept) if kept else torch.empty(0, 3, model.height, model.width)
    return _joined(parts), images_SCHW


def score_images(rewards: Sequence[WeightedReward], images: Tensor, prompts: Sequence[str]) -> Scores:
    """Scores images under all rewards."""
    total, passed = np.zeros(len(prompts)), np.ones(len(prompts), dtype=bool)
    by_reward, optimised = {}, []
    for weighted in rewards:
        batch = score(weighted.reward, images, prompts)
        name = f"held_out_{weighted.reward.name}" if weighted.is_held_out else weighted.reward.name
        by_reward[name] = np.asarray(batch.scores, dtype=np.float64)
        by_reward |= {
            f"{name}_{metric}": np.asarray(values, dtype=np.float64) for metric, values in batch.metrics.items()
        }
        if not weighted.is_held_out:
            optimised.append(by_reward[name])
            total += weighted.weight * by_reward[name]
            passed &= np.asarray(batch.passed, dtype=bool)
    return Scores(total / sum(weighted.weight for weighted in rewards), passed, by_reward, tuple(optimised))


def _joined(parts: Sequence[Scores]) -> Scores:
    return Scores(
        np.concatenate([part.reward_R for part in parts]),
        np.concatenate([part.passed_R for part in parts]),
        {name: np.concatenate([part.by_reward[name] for part in parts]) for name in parts[0].by_reward},
        tuple(np.concatenate(columns) for columns in zip(*(part.optimised for part in parts), strict=True)),
    )


def evaluate(
    model: ModelAdapter, sampler: Sampler, rewards: Sequence[WeightedReward], evaluation_set: EvaluationSet
) -> Evaluation:
    """Draws and scores the evaluation set with the weights that are in place."""
    prompt_R = torch.tensor(evaluation_set.prompt_of_row, device=model.device)
    latents = sampler.ode(evaluation_set.x_RNC, evaluation_set.sigmas, evaluation_set.embeds, prompt_R)
    prompts = [evaluation_set.prompts[p] for p in evaluation_set.prompt_of_row]
    scores, images = score_latents(model, sampler, rewards, latents, prompts, evaluation_set.sample_rows)
    return Evaluation(scores, images)


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


def paired_interval(before_PM: FloatArray, after_PM: FloatArray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of the mean paired difference, resampling prompts.

    Images of one prompt are no independent evidence, so whole prompts are drawn; with a single prompt, its images are.
    """
    delta_PM = np.asarray(after_PM) - np.asarray(before_PM)
    units = delta_PM.mean(axis=1) if len(delta_PM) > 1 else delta_PM[0]
    rng = np.random.default_rng(seed)
    chunks = [
        units[rng.integers(len(units), size=(100, len(units)))].mean(axis=1) for _ in range(_BOOTSTRAP_DRAWS // 100)
    ]
    low, high = np.quantile(np.concatenate(chunks), [0.025, 0.975])
    return float(low), float(high)
