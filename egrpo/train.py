"""E-GRPO, Algorithm 1 of arXiv 2601.00423: `train` is the whole method on one screen.

`Run` beside it keeps the book: phases and events, evaluations, checkpoints, resume, and what a finished run leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from egrpo.advantage import Advantages, combined_advantages
from egrpo.batch import Batch
from egrpo.config import TrainSpec
from egrpo.events import EventWriter
from egrpo.policy import UpdateStats
from egrpo.rollout import Rollout, roll_out
from egrpo.run import Run
from egrpo.schedule import MergedStep
from egrpo.scoring import NO_GROUP, Scores, WeightedReward, score_latents, training_metrics


def train(
    spec: TrainSpec,
    output: Path,
    *,
    resume: bool = False,
    events: EventWriter | None = None,
    check_stop: Callable[[], None] = lambda: None,
    rewards: Sequence[WeightedReward] | None = None,
    show_progress: bool = False,
) -> Path:
    """Trains an adapter and returns the path of `report.json`.

    `check_stop` is called often and may raise `StopRequested`: the last finished optimizer step is then committed and
    the exception goes on to the caller. `rewards` replaces those that the spec names.

    Raises:
        EGRPOError: by the tree of `egrpo.errors`.
    """
    run = Run.prepare(spec, output, resume, events or EventWriter(output), check_stop, rewards)
    method, training, draws, policy = spec.method, spec.training, run.draws, run.policy
    with run.committing_on_stop(), run.progress_bar(show_progress):
        run.evaluate_if_due()
        run.events.phase("training")
        while run.step < training.steps:
            started = time.monotonic()
            batch = run.pending
            if batch is None:
                prompt_P = draws.prompts(training.prompts_per_update)
                x_PNC = run.model.initial_latents(draws.seeds(len(prompt_P)))
                steps = draws.active_steps(run.plan.steps, method.active_steps_per_update)
                embeds = run.embeds_of(prompt_P)
                with policy.rollout_weights():
                    rollout = roll_out(
                        policy.sampler, run.plan, steps, x_PNC, embeds, method.group_size, noise=draws.noise
                    )
                scores = _score(run, rollout, prompt_P)
                advantages = _advantages(run, scores, rollout)
                batch = Batch(prompt_P, rollout, advantages)
                run.check_first_rollout(batch, scores.optimised)
                run.measure(_rollout_metrics(scores, rollout, advantages, steps, time.monotonic() - started))
            stats, batch.old_log_probs_APG = policy.update(
                batch.rollout, batch.advantages, run.embeds_of(batch.prompt_P), run.step, batch.old_log_probs_APG
            )
            batch.updates += 1
            run.pending = batch if batch.updates < training.updates_per_rollout else None
            run.measure(_update_metrics(stats))
            run.finish_step(time.monotonic() - started)
            run.evaluate_if_due()
            run.commit_if_due()
        return run.finish()


def _score(run: Run, rollout: Rollout, prompt_P: Sequence[int]) -> Scores:
    """Scores the anchors, which are in no group, then all tails, as one list of rows."""
    num_active, num_prompts, group_size = rollout.tails_APGNC.shape[:3]
    anchors = [run.train_prompts[p] for p in prompt_P]
    tails = [prompt for prompt in anchors for _ in range(group_size)] * num_active
    groups = [NO_GROUP] * num_prompts + np.arange(num_active * num_prompts).repeat(group_size).tolist()
    latents = rollout.final_latents()
    return score_latents(run.model, run.policy.sampler, run.optimised, latents, anchors + tails, groups)[0]


def _advantages(run: Run, scores: Scores, rollout: Rollout) -> Advantages:
    spec = run.spec
    num_active, num_prompts, group_size = rollout.tails_APGNC.shape[:3]
    return combined_advantages(
        [values[num_prompts:].reshape(num_active, 1, num_prompts, group_size) for values in scores.optimised],
        [component.weight for component in spec.reward.components],
        combine=spec.reward.combine,
        std_floor=spec.training.advantage_std_floor,
        clip=spec.training.advantage_clip,
        gather=run.batch_moments,
    )


def _rollout_metrics(
    scores: Scores, rollout: Rollout, advantages: Advantages, steps: Sequence[MergedStep], seconds: float
) -> dict[str, float]:
    num_prompts = len(rollout.anchor_PNC)
    tails = scores.reward_R[num_prompts:]
    groups = tails.reshape(-1, rollout.tails_APGNC.shape[2])
    return {
        "reward_mean": float(tails.mean()),
        "reward_std": float(tails.std()),
        "reward_group_std": float(groups.std(axis=1).mean()),
        "reward_best": float(tails.max()),
        "reward_worst": float(tails.min()),
        "passed_fraction": float(scores.passed_R[num_prompts:].mean()),
        "anchor_reward": float(scores.reward_R[:num_prompts].mean()),
        "anchor_passed_fraction": float(scores.passed_R[:num_prompts].mean()),
        **training_metrics(scores, slice(num_prompts, None), advantages.num_flat_by_reward),
        "zero_variance_groups": float(advantages.num_flat),
        "advantage_abs_mean": float(np.abs(advantages.values_APG).mean()),
        "num_active_steps": float(len(steps)),
        "network_evaluations": float(rollout.network_evaluations),
        "images_per_second": len(scores.reward_R) / seconds,
        "rollout_seconds": seconds,
    }


def _update_metrics(stats: UpdateStats) -> dict[str, float]:
    return {
        "loss": stats.loss.loss,
        "kl": stats.loss.kl,
        "clip_fraction": stats.loss.clip_fraction,
        "ratio_deviation": stats.loss.ratio_deviation,
        "grad_norm": stats.grad_norm,
        "learning_rate": stats.learning_rate,
        "skipped_update": float(stats.is_skipped),
        "update_evaluations": float(stats.loss.network_evaluations),
    }
