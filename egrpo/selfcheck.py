"""Looks at a run's first rollout before the first update, and stops what could only waste the time of a GPU.

Three faults account for most runs that never learn: the policy update scores transitions under another function than
the rollout drew them with, no group's rewards differ, or the pictures are not pictures. Each is cheap to see on the
first rollout: one forward per active step for a few prompts, and one decoded batch.

It is made once, before the first update of a run. A resumed run has the same spec, model and rewards, and has already
learned; its first rollout is like any other.

Axis letters: B the prompts that are looked at, M members, N latent tokens, C channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from egrpo.advantage import Advantages
from egrpo.errors import SelfCheckError
from egrpo.lora import adapted_layers
from egrpo.loss import score_step
from egrpo.models.adapter import PromptEmbeds
from egrpo.objective import sensitivity
from egrpo.policy import Policy
from egrpo.rewards import FloatArray
from egrpo.rollout import Rollout, Transition, step_between
from egrpo.scoring import WeightedReward

_MAX_PROMPTS = 2
# Rounding errors of a velocity, relative to its size, in units of the number format's precision; folding an adapter
# into float32 weights and another batch size change the order of sums in every layer.
_ROUNDINGS = 8
_FLOAT32_TOLERANCE = 1e-5
# A log-probability is of size 1 and is computed in float32.
_RATIO_FLOOR = 1e-6
# Fewer groups that are flat may be bad luck.
_MIN_GROUPS = 4
# Standard deviation of the adapter's parameters while its two forms are compared.
_MOVE = 0.02


@dataclass(frozen=True)
class Replay:
    """How far the update's view of the drawn transitions is from the rollout's; worst over the active steps.

    Args:
        velocity_error: root mean square of the velocities' difference, relative to the velocity.
        velocity_tolerance: what rounding explains.
        ratio_deviation: |ratio - 1| of the drawn transitions.
        ratio_tolerance: the ratio's largest deviation under a velocity error of that tolerance.
    """

    velocity_error: float
    velocity_tolerance: float
    ratio_deviation: float
    ratio_tolerance: float


def check_first_rollout(
    policy: Policy,
    rollout: Rollout,
    embeds: PromptEmbeds,
    advantages: Advantages,
    rewards: Sequence[WeightedReward],
    scores: Sequence[FloatArray],
) -> str:
    """Returns one line about what was checked.

    `scores` are those of `rewards`, in that order.

    Raises:
        SelfCheckError: something is wrong; the message says what to change.
    """
    # First what runs the transformer: sharded weights need every process for it, and the scores are each one's own.
    replay = measure_replay(policy, rollout, embeds)
    check_scores(rewards, scores)
    check_groups(advantages, advantages.values_APG.shape[-1])
    check_images(policy.model.decode(rollout.final_latents()[:_MAX_PROMPTS]))
    check_replay(replay)
    return (
        f"self-check passed: replayed ratio is 1 within {replay.ratio_deviation:.1e} (allowed "
        f"{replay.ratio_tolerance:.1e}), rewards differ in {advantages.is_flat_AP.size - advantages.num_flat} of "
        f"{advantages.is_flat_AP.size} groups"
    )


def check_scores(rewards: Sequence[WeightedReward], scores: Sequence[FloatArray]) -> None:
    """Refuses scores outside the range that their reward states; that they are finite was checked when they came.

    Raises:
        SelfCheckError: a score lies outside; the message names the reward and the score.
    """
    for weighted, values in zip(rewards, scores, strict=True):
        low, high = weighted.reward.range
        if values.min() < low or values.max() > high:
            raise SelfCheckError(
                f"reward {weighted.reward.name!r} gave scores from {values.min():g} to {values.max():g} and states the "
                f"range {low:g} to {high:g}; correct the reward or its range"
            )


def check_groups(advantages: Advantages, group_size: int) -> None:
    """Refuses a rollout none of whose groups can teach anything, unless there are too few to tell.

    Raises:
        SelfCheckError: within every group all rewards are equal.
    """
    if advantages.num_flat == advantages.is_flat_AP.size >= _MIN_GROUPS:
        raise SelfCheckError(
            f"in all {advantages.num_flat} groups of the first rollout the rewards of the {group_size} members are "
            "equal, so that there is nothing to learn from: use prompts that are neither always nor never fulfilled, "
            "a larger method.group_size or method.eta, more training.prompts_per_update, or a reward that is continuous"
        )


def check_images(images_BCHW: Tensor) -> None:
    """Refuses images that are not finite, or of one colour all over.

    Raises:
        SelfCheckError: with what to change.
    """
    advice = "use training.precision 'float32', and see whether the stock pipeline draws with this model"
    if not torch.isfinite(images_BCHW).all():
        raise SelfCheckError(f"the first images hold numbers that are not finite; {advice}")
    spread_B = images_BCHW.flatten(2).amax(-1) - images_BCHW.flatten(2).amin(-1)
    if float(spread_B.max()) == 0:
        raise SelfCheckError(f"the first images are of one colour all over; {advice}")


def check_replay(replay: Replay) -> None:
    """Refuses a policy update that would score other transitions than were drawn.

    Raises:
        SelfCheckError: the difference is more than rounding explains.
    """
    if replay.velocity_error <= replay.velocity_tolerance and replay.ratio_deviation <= replay.ratio_tolerance:
        return
    raise SelfCheckError(
        f"the policy update sees other transitions than the rollout drew: velocities differ by "
        f"{replay.velocity_error:.1e} of their size (allowed {replay.velocity_tolerance:.1e}) and the ratio of "
        f"probabilities from 1 by {replay.ratio_deviation:.1e} (allowed {replay.ratio_tolerance:.1e}); use "
        "training.precision 'float32', or training.micro_batch_size 1 if the model depends on the batch"
    )


@torch.no_grad()
def measure_replay(policy: Policy, rollout: Rollout, embeds: PromptEmbeds) -> Replay:
    """Scores the drawn transitions of a few prompts with the rollout's weights and, one by one, with the update's.

    With d the difference of the two means, the log-ratio is <eps, d>/std - <d, d>/(2 std^2), where <,> is the mean
    over dimensions. So |log ratio| <= rms(eps)*q + q^2/2 with q = rms(d)/std, and q is the velocity's error times
    `egrpo.objective.sensitivity`: one tolerance gives the other.
    """
    tolerance = max(_ROUNDINGS * torch.finfo(policy.precision.dtype).eps, _FLOAT32_TOLERANCE)
    with _moved_adapter(policy):
        found = [_replay_of(policy, rollout, transition, embeds, tolerance) for transition in rollout.transitions]
    return Replay(
        max(replay.velocity_error for replay in found),
        tolerance,
        max(replay.ratio_deviation for replay in found),
        max(replay.ratio_tolerance for replay in found),
    )


def _replay_of(
    policy: Policy, rollout: Rollout, transition: Transition, embeds: PromptEmbeds, tolerance: float
) -> Replay:
    model, plan, guidance = policy.model, rollout.plan, policy.sampler.guidance
    step, x_PXNC = transition.step, transition.x_PXNC
    rows = torch.arange(min(_MAX_PROMPTS, len(x_PXNC)), device=x_PXNC.device)
    x_BNC, text, t = x_PXNC[rows, 0], embeds[rows], plan.sigmas[step.start]
    # The first latent of a prompt, and the members that were drawn from it: all of the group, or that one.
    x_next_BMNC = transition.x_next_PGNC[rows] if x_PXNC.shape[1] == 1 else transition.x_next_PGNC[rows, :1]
    with policy.rollout_weights():
        drawn_BNC = model.velocity(x_BNC, t, text, guidance)
    scored_BNC = torch.cat([model.velocity(x_BNC[b][None], t, text[b[None]], guidance) for b in rows])
    drawn_BM, scored_BM = (
        score_step(plan, step, x_BNC, v_BNC, x_next_BMNC).log_prob_PG for v_BNC in (drawn_BNC, scored_BNC)
    )
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    unit = step_between(plan, step, zero, one, noise=zero)
    size = _rms(drawn_BNC)
    shift = tolerance * size * sensitivity(unit.mean, unit.std)
    # Of the log-probability only the squared draw depends on the sample.
    noise = math.sqrt(-2 * float(drawn_BM.min()) - 2 * math.log(unit.std) - math.log(2 * math.pi))
    return Replay(
        _rms(scored_BNC - drawn_BNC) / size,
        tolerance,
        float(torch.expm1(scored_BM - drawn_BM).abs().max()),
        _RATIO_FLOOR + noise * shift + shift**2 / 2,
    )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


@contextmanager
def _moved_adapter(policy: Policy) -> Iterator[None]:
    """Moves the adapter away from zero inside the block: before the first update it has no effect to compare."""
    if not adapted_layers(policy.model.transformer):
        yield
        return
    kept = [parameter.detach().clone() for _, parameter in policy.parameters]
    generator = torch.Generator().manual_seed(0)
    try:
        for _, parameter in policy.parameters:
            parameter.add_(_MOVE * torch.randn(parameter.shape, generator=generator).to(parameter.device))
        yield
    finally:
        for (_, parameter), value in zip(policy.parameters, kept, strict=True):
            parameter.copy_(value)
