"""The clipped objective and its gradient: one forward and backward per (prompt, active step).

The members of a group share prompt, latent and time, so they share the velocity and the mean of their transition; only
the drawn x_next differs. One forward therefore scores the whole group, and the prompts of one active step share the
batch. The gradient is that of scoring every sample on its own.

Axis letters: A active step, P prompt, G group member, B prompts of one micro-batch, N image tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from egrpo.advantage import Advantages
from egrpo.errors import NonFiniteError
from egrpo.lora import base_weights
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.rollout import Branch, Rollout, Sampler
from egrpo.schedule import MergePlan
from egrpo.sde import sde_step


@dataclass(frozen=True)
class Objective:
    """Numbers of the objective: clip range and weight of the velocity-space KL term."""

    clip_range: float
    kl_weight: float = 0.0


@dataclass(frozen=True)
class LossStats:
    """What one pass over the batch measured; means over groups and their members."""

    loss: float
    kl: float
    clip_fraction: float
    ratio_deviation: float
    network_evaluations: int


def clipped_loss(ratio_PG: Tensor, advantages_PG: Tensor, clip_range: float) -> Tensor:
    """Returns max(-A*r, -A*clip(r, 1 - eps, 1 + eps)), float32 [P, G]. Source: arXiv 2601.00423, eq. 13."""
    clipped = ratio_PG.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages_PG * ratio_PG, -advantages_PG * clipped)


def transition_log_prob(plan: MergePlan, branch: Branch, v_BNC: Tensor, rows: Tensor) -> Tensor:
    """Returns the log-probability [B, G] of a branch's drawn transitions under a velocity, for some of its prompts."""
    return sde_step(
        branch.x_PNC[rows][:, None],
        v_BNC[:, None],
        plan.sigmas[branch.step.start],
        plan.sigmas[branch.step.end],
        t_1=plan.sigmas[1],
        eta=plan.eta,
        x_next=branch.x_next_PGNC[rows],
    ).log_prob


class PolicyLoss:
    """Accumulates the gradient of the objective over a rollout, and remembers the old log-probabilities.

    On the first pass the old log-probability is the new one, detached: the ratio is exactly 1 and the gradient is the
    policy gradient. Later passes over the same rollout use the remembered ones. `scale` is applied to the loss before
    every backward.
    """

    def __init__(
        self,
        model: ModelAdapter,
        sampler: Sampler,
        objective: Objective,
        scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._objective = objective
        self._scale = scale

    def accumulate(
        self, rollout: Rollout, advantages: Advantages, embeds: PromptEmbeds, old_log_probs_APG: Tensor | None
    ) -> tuple[LossStats, Tensor]:
        """Adds the gradient of the mean over active steps and prompts.

        Returns measurements and the old log-probabilities [A, P, G], which later passes over the rollout need. Groups
        whose rewards are all equal have no gradient, so they are not even run unless the KL term needs them.

        Raises:
            NonFiniteError: the loss of an active step is not finite.
        """
        num_groups = advantages.is_flat_AP.size
        values_APG = torch.as_tensor(advantages.values_APG, dtype=torch.float32)
        known = old_log_probs_APG if old_log_probs_APG is not None else torch.full_like(values_APG, torch.nan)
        sums = np.zeros(4)
        evaluations = 0
        for a, branch in enumerate(rollout.branches):
            for rows in self._chosen(advantages.is_flat_AP[a]):
                self._sampler.check_stop()
                new, measured = self._accumulate_rows(
                    rollout.plan, branch, rows, values_APG[a], embeds, known[a], num_groups
                )
                known[a, rows] = torch.where(known[a, rows].isnan(), new, known[a, rows])
                sums += measured
                evaluations += len(rows)
        loss, kl, clipped, deviation = (sums / num_groups).tolist()
        return LossStats(loss, kl, clipped, deviation, evaluations), known

    def _chosen(self, is_flat_P: np.ndarray) -> Sequence[Tensor]:
        keep = np.ones_like(is_flat_P) if self._objective.kl_weight > 0 else ~is_flat_P
        rows = torch.as_tensor(np.flatnonzero(keep))
        return torch.split(rows, self._sampler.micro_batch_size) if len(rows) else ()

    def _accumulate_rows(
        self,
        plan: MergePlan,
        branch: Branch,
        rows: Tensor,
        values_PG: Tensor,
        embeds: PromptEmbeds,
        known_PG: Tensor,
        num_groups: int,
    ) -> tuple[Tensor, np.ndarray]:
        device_rows = rows.to(branch.x_PNC.device)
        t = plan.sigmas[branch.step.start]
        x_BNC, text = branch.x_PNC[device_rows], embeds[device_rows]
        v_BNC = self._model.velocity(x_BNC, t, text, self._sampler.guidance)
        log_prob_BG = transition_log_prob(plan, branch, v_BNC, device_rows)
        known_BG = known_PG[rows].to(log_prob_BG.device)
        old_BG = torch.where(known_BG.isnan(), log_prob_BG.detach(), known_BG)
        ratio_BG = torch.exp(log_prob_BG - old_BG)
        loss = clipped_loss(ratio_BG, values_PG[rows].to(ratio_BG.device), self._objective.clip_range).mean(-1).sum()
        kl = self._velocity_kl(v_BNC, x_BNC, t, text) if self._objective.kl_weight > 0 else torch.zeros_like(loss)
        total = loss + self._objective.kl_weight * kl
        if not torch.isfinite(total):
            raise NonFiniteError(f"the loss of active step {branch.step.start} is {total.item()}")
        torch.autograd.backward(self._scale(total / num_groups))
        deviation_BG = (ratio_BG.detach() - 1).abs()
        outside = (deviation_BG > self._objective.clip_range).float().mean(-1).sum()
        sums = torch.stack([total.detach(), kl.detach(), outside, deviation_BG.mean(-1).sum()])
        return log_prob_BG.detach().cpu(), sums.double().cpu().numpy()

    def _velocity_kl(self, v_BNC: Tensor, x_BNC: Tensor, t: float, text: PromptEmbeds) -> Tensor:
        """Returns the sum over prompts of the mean squared distance to the base model's velocity.

        Up to a factor that depends on the step alone, this is the KL divergence of the two transitions; without the
        factor it has one scale over the schedule.
        """
        with torch.no_grad(), base_weights(self._model.transformer):
            base_BNC = self._model.velocity(x_BNC, t, text, self._sampler.guidance)
        return torch.square(v_BNC - base_BNC).mean(dim=(-2, -1)).sum()
