"""E-GRPO, Algorithm 1 of arXiv 2601.00423: `train` is the whole method on one screen.

`Run` beside it keeps the book: phases and events, evaluations, checkpoints, resume, and what a finished run leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from egrpo.advantage import Advantages, combined_advantages
from egrpo.batch import Batch
from egrpo.config import TrainSpec
from egrpo.events import EventWriter
from egrpo.loss import OldPolicy
from egrpo.measures import rollout_metrics, update_metrics
from egrpo.rollout import Rollout, roll_out
from egrpo.run import Run
from egrpo.schedule import GroupPlan
from egrpo.scoring import NO_GROUP, Scores, WeightedReward, score_latents


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
    updates_of_a_rollout = training.updates_per_rollout * training.minibatches_per_rollout
    with run.committing_on_stop(), run.progress_bar(show_progress):
        run.evaluate_if_due()
        run.events.phase("training")
        while run.step < training.steps:
            started = time.monotonic()
            batch = run.pending
            if batch is None:
                prompt_P = draws.prompts(training.prompts_per_update * training.minibatches_per_rollout)
                x_PXNC = _initial_latents(run, len(prompt_P))
                # Which steps are stochastic, how many are merged into one, and which of them are trained.
                groups = draws.groups(method, run.plan, run.step)
                # The ODE to each group's branch, G samples of its SDE step, the ODE from its end to t = 0.
                rollout = _roll_out(run, groups, x_PXNC, prompt_P)
                scores = _score(run, rollout, prompt_P)
                # Rewards normalised among the samples that share that step.
                advantages = _advantages(run, scores, rollout)
                batch = Batch(prompt_P, rollout, advantages, OldPolicy.unknown(rollout, training.surrogate))
                run.check_first_rollout(batch, scores.optimised)
                run.measure(_measured(run, scores, rollout, groups, advantages, time.monotonic() - started))
            # A clipped policy-gradient step on exactly those transitions.
            stats = policy.update(batch, run.embeds_of(batch.prompt_P), run.step)
            run.pending = batch if batch.updates < updates_of_a_rollout else None
            run.measure(update_metrics(stats))
            run.finish_step(time.monotonic() - started)
            run.evaluate_if_due()
            run.commit_if_due()
        return run.finish()


def _initial_latents(run: Run, num_prompts: int) -> Tensor:
    """Returns the noise [P, X, N, C] that groups start from: one for a prompt, or one for each member."""
    count = 1 if run.spec.method.shares_noise else run.spec.method.group_size
    x_BNC = run.model.initial_latents(run.draws.seeds(num_prompts * count))
    return x_BNC.reshape(num_prompts, count, *x_BNC.shape[1:])


def _roll_out(run: Run, groups: Sequence[GroupPlan], x_PXNC: Tensor, prompt_P: Sequence[int]) -> Rollout:
    method, policy, embeds = run.spec.method, run.policy, run.embeds_of(prompt_P)
    with policy.rollout_weights():
        return roll_out(
            policy.sampler,
            run.plan,
            groups,
            x_PXNC,
            embeds,
            method.group_size,
            noise=run.draws.noise,
            draws_anchor=method.draws_anchor,
        )


def _score(run: Run, rollout: Rollout, prompt_P: Sequence[int]) -> Scores:
    """Scores the anchors, which are in no group, then all tails, as one list of rows."""
    num_groups, num_tails, num_prompts, group_size = rollout.tails_AKPGNC.shape[:4]
    prompts = [run.train_prompts[p] for p in prompt_P]
    anchors = prompts[: len(rollout.anchor_PNC)]
    tails = [prompt for prompt in prompts for _ in range(group_size)] * (num_groups * num_tails)
    together = np.arange(num_groups * num_tails * num_prompts).repeat(group_size).tolist()
    latents, groups = rollout.final_latents(), [NO_GROUP] * len(anchors) + together
    return score_latents(run.model, run.policy.sampler, run.optimised, latents, anchors + tails, groups)[0]


def _advantages(run: Run, scores: Scores, rollout: Rollout) -> Advantages:
    spec, shape, num_anchors = run.spec, rollout.tails_AKPGNC.shape[:4], len(rollout.anchor_PNC)
    return combined_advantages(
        [values[num_anchors:].reshape(shape) for values in scores.optimised],
        [component.weight for component in spec.reward.components],
        combine=spec.reward.combine,
        std_floor=spec.training.advantage_std_floor,
        clip=spec.training.advantage_clip,
        gather=run.batch_moments,
    )


def _measured(
    run: Run,
    scores: Scores,
    rollout: Rollout,
    groups: Sequence[GroupPlan],
    advantages: Advantages,
    seconds: float,
) -> dict[str, float]:
    passes = run.model.passes_per_velocity(run.spec.method.guidance_scale)
    return rollout_metrics(scores, rollout, groups, advantages, passes, seconds)
