"""Surrogate objectives: what a policy pays for a drawn transition, given its log-probability and mean, old and new.

Pure functions of tensors; nothing here knows a model, a plan or a rollout. Every surrogate starts from the same point:
on the first update after a rollout old and new are one policy, every ratio is exactly 1, nothing is clipped or masked,
and the gradient is the policy gradient -A * grad log p (times std/delta under `grpo_guard`). They differ in what they
do on later updates, when the policy has moved.

Everywhere the log-probability is the MEAN over latent dimensions (`egrpo.sde`). So is the squared distance between
means, and each formula of a paper that sums over the D dimensions is here that formula divided by D. Limits and clip
ranges are therefore per dimension: 1e-5 here is what 0.65 would be for the 65 536 numbers of a FLUX.1 latent at 512
pixels.

Axis letters: P prompt, G group member, N latent tokens, C channels; X is 1 where a group shares its latent, and so the
mean of its transition, and G where every member has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from egrpo.config import Surrogate


@dataclass(frozen=True)
class Scored:
    """Drawn transitions of one denoising step as a policy sees them.

    Args:
        log_prob_PG: float32, log-density of the drawn latents, averaged over N and C.
        mean_PXNC: float32, means of the transitions' Gaussians. The old policy's are needed by `grpo_guard` and
            `flow_dppo` alone.
    """

    log_prob_PG: Tensor
    mean_PXNC: Tensor

    def detached(self) -> Scored:
        """The same numbers without a gradient: the old policy, when it is the new one."""
        return Scored(self.log_prob_PG.detach(), self.mean_PXNC.detach())


@dataclass(frozen=True)
class SurrogateTerms:
    """The loss of every sample, and what is worth measuring about it.

    Args:
        loss_PG: with gradient; its mean is minimised.
        ratio_PG: probability ratio new/old per dimension, detached; the plain one, whatever the surrogate made of it.
        is_outside_PG: whether the sample lies outside the trust region (clip range or divergence limit).
    """

    loss_PG: Tensor
    ratio_PG: Tensor
    is_outside_PG: Tensor


def needs_old_means(surrogate: Surrogate) -> bool:
    """Whether later updates on a rollout need the old policy's means beside its log-probabilities."""
    return surrogate != "ppo_clip"


def surrogate_loss(
    surrogate: Surrogate,
    new: Scored,
    old: Scored,
    advantages_PG: Tensor,
    *,
    std: float,
    delta: float,
    clip_range: float,
    divergence_limit: float,
) -> SurrogateTerms:
    """Returns the chosen surrogate of transitions that the old policy drew, float32 [P, G].

    `std` is the standard deviation of the transition and `delta` = t - t_next > 0 its length in flow time.
    `divergence_limit` is read by `flow_dppo` alone, `clip_range` by the others.
    """
    log_ratio_PG = new.log_prob_PG - old.log_prob_PG
    if surrogate == "flow_dppo":
        divergence_PX = mean_divergence(new.mean_PXNC, old.mean_PXNC, std)
        return flow_dppo(log_ratio_PG, advantages_PG, divergence_PX, divergence_limit)
    if surrogate == "grpo_guard":
        divergence_PX = mean_divergence(new.mean_PXNC, old.mean_PXNC, std)
        return grpo_guard(log_ratio_PG, advantages_PG, divergence_PX, clip_range, std=std, delta=delta)
    return ppo_clip(log_ratio_PG, advantages_PG, clip_range)


def mean_divergence(mean_new: Tensor, mean_old: Tensor, std: float) -> Tensor:
    """Returns (mean_new - mean_old)^2 / (2 std^2), averaged over N and C: the KL divergence per dimension.

    Exact and the same in both directions, because the two Gaussians share their standard deviation. Source:
    Flow-DPPO, arXiv 2606.11025, eq. 14, divided by the number of dimensions. [..., N, C] gives [...].
    """
    return torch.square((mean_new - mean_old) / std).mean(dim=(-2, -1)) / 2


def ppo_clip(log_ratio_PG: Tensor, advantages_PG: Tensor, clip_range: float) -> SurrogateTerms:
    """Returns max(-A*r, -A*clip(r, 1 - eps, 1 + eps)) with r = exp(log ratio).

    Source: E-GRPO, arXiv 2601.00423, eq. 13; the clipped surrogate of PPO, arXiv 1707.06347, eq. 7.
    """
    ratio_PG = torch.exp(log_ratio_PG)
    clipped = ratio_PG.clamp(1 - clip_range, 1 + clip_range)
    loss_PG = torch.maximum(-advantages_PG * ratio_PG, -advantages_PG * clipped)
    ratio_PG = ratio_PG.detach()
    return SurrogateTerms(loss_PG, ratio_PG, (ratio_PG - 1).abs() > clip_range)


def grpo_guard(
    log_ratio_PG: Tensor,
    advantages_PG: Tensor,
    divergence_PX: Tensor,
    clip_range: float,
    *,
    std: float,
    delta: float,
) -> SurrogateTerms:
    """Returns the clipped surrogate of the normalised ratio, divided by the length of the step.

    With x_next = mean_old + std * eps the log-ratio is <eps, d>/std - <d, d>/(2 std^2), where d = mean_new - mean_old
    and <,> is the mean over dimensions: it is biased below 0 by the divergence, and wide where std is small. So

        log r' = std * (log r + <d, d>/(2 std^2)) = <eps, d>

    has mean 0 over the draw and a width that depends on d alone, and clips high and low samples of all timesteps
    alike. The loss is clip-surrogate(r') / delta: the gradient of log r' through the mean grows with delta.

    Source: GRPO-Guard, arXiv 2510.22319: ratio normalisation, eq. 8, and the reweighting of gradients by 1/delta that
    follows it. The paper's sums over D dimensions are means here, so r' is its D-th root. The gradient at r' = 1 is
    the policy gradient times std/delta. r' lies closer to 1 than r, by the factor std: clip ranges are smaller than
    those of `ppo_clip` (public recipes use 2e-6).
    """
    normalised = ppo_clip(std * (log_ratio_PG + divergence_PX), advantages_PG, clip_range)
    return SurrogateTerms(normalised.loss_PG / delta, torch.exp(log_ratio_PG.detach()), normalised.is_outside_PG)


def flow_dppo(
    log_ratio_PG: Tensor, advantages_PG: Tensor, divergence_PX: Tensor, divergence_limit: float
) -> SurrogateTerms:
    """Returns -A*r, and 0 where the update would lead further away from an old policy that is already too far.

    Too far: the divergence per dimension is above the limit. Further away: A > 0 and r > 1, or A < 0 and r < 1. An
    update that leads back is never stopped, however far the policy is. The mask itself has no gradient.

    Source: Flow-DPPO, arXiv 2606.11025, eqs. 14 and 18; DPPO, arXiv 2602.04879. The limit is the paper's divided by
    the number of dimensions, as in the authors' own code, whose 1e-5 is the default.
    """
    ratio_PG = torch.exp(log_ratio_PG)
    is_outside_PG = (divergence_PX.detach() > divergence_limit).expand_as(ratio_PG)
    leads_away_PG = advantages_PG * log_ratio_PG.detach() > 0
    loss_PG = torch.where(is_outside_PG & leads_away_PG, 0.0, -advantages_PG * ratio_PG)
    return SurrogateTerms(loss_PG, ratio_PG.detach(), is_outside_PG)


def rectified_weights(sensitivities: Sequence[float]) -> list[float]:
    """Returns weights of the timesteps that give all of them gradients of one size: (1/c_i) / mean(1/c).

    c_i = |d mean/d v| / std is how strongly the log-probability of step i answers to the velocity (`sensitivity`).
    Source: Flash-GRPO, arXiv 2605.15980, temporal gradient rectification, with
    c = sqrt(delta)/sigma + sigma*sqrt(delta)*(1 - t)/(2t) for Flow-SDE. The weights have mean 1, so that the learning
    rate keeps its meaning. Ours: the mean is over all steps of the plan and not over those of one update, so that a
    step weighs the same whichever others are drawn beside it.
    """
    inverse = [1 / c for c in sensitivities]
    mean = sum(inverse) / len(inverse)
    return [value / mean for value in inverse]


def sensitivity(mean_of_unit_velocity: Tensor, std: float) -> float:
    """Returns |d mean/d v| / std of a kernel's step.

    Every kernel's mean is linear in x and v, so its derivative is the mean of a step from x = 0 with v = 1: the kernel
    itself says it, and no second formula has to agree with it.
    """
    return float(mean_of_unit_velocity.abs().mean()) / std
