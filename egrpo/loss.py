"""The objective over a rollout and its gradient: one forward and backward per latent that a transition starts from.

The members of a group that share their latent share velocity and mean too; only the drawn x_next differs. One forward
then scores the whole group, and the gradient is that of scoring every sample on its own. Where members have latents of
their own, as on later steps of a trajectory, each has its forward.

Axis letters: T transition, A group of the plan, P prompt, G group member, X latents that a transition starts from (1 if
the group shares it, else G), B of them in one micro-batch, M members that one of them scores (G or 1), N image tokens,
C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from egrpo.advantage import Advantages
from egrpo.config import Surrogate, TrainingSpec
from egrpo.errors import NonFiniteError
from egrpo.lora import base_weights
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.objective import Scored, needs_old_means, rectified_weights, sensitivity, surrogate_loss
from egrpo.rollout import Rollout, Sampler, Transition, step_between
from egrpo.schedule import MergedStep, MergePlan

# The limit of the authors' code; see `egrpo.objective.flow_dppo`.
_DIVERGENCE_LIMIT = 1e-5


@dataclass(frozen=True)
class Objective:
    """Settings of the objective; `step_weights` rescales the transitions that start at a step index."""

    clip_range: float
    kl_weight: float = 0.0
    surrogate: Surrogate = "ppo_clip"
    divergence_limit: float = _DIVERGENCE_LIMIT
    step_weights: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: TrainingSpec, plan: MergePlan) -> Self:
        """Returns the objective of a spec for the steps of a plan."""
        weights = step_weights(plan) if spec.timestep_rescale == "flash" else {}
        limit = spec.divergence_limit or _DIVERGENCE_LIMIT
        return cls(spec.clip_range, spec.kl_weight, spec.surrogate, limit, weights)


def step_weights(plan: MergePlan) -> dict[int, float]:
    """Returns the weight of every step of a plan by its start, so that all answer alike to the velocity."""
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    unit = [step_between(plan, step, zero, one, noise=zero) for step in plan.steps]
    weights = rectified_weights([sensitivity(drawn.mean, drawn.std) for drawn in unit])
    return {step.start: weight for step, weight in zip(plan.steps, weights, strict=True)}


@dataclass(frozen=True)
class LossStats:
    """What one pass over the batch measured; means over transitions, prompts and members."""

    loss: float
    kl: float
    clip_fraction: float
    ratio_deviation: float
    network_evaluations: int


@dataclass(frozen=True)
class OldPolicy:
    """What the policy that drew a rollout said of its transitions, by the path that the update takes.

    Log-probabilities [P, G] per transition, NaN where nobody has asked yet; means [P, X, N, C] where the surrogate
    needs them. The first pass over a transition fills them in: then old and new are one policy.
    """

    log_probs_PG: list[Tensor]
    means_PXNC: list[Tensor]

    @classmethod
    def unknown(cls, rollout: Rollout, surrogate: Surrogate) -> Self:
        """Returns a record that nothing is known yet."""
        log_probs = [torch.full(transition.x_next_PGNC.shape[:2], torch.nan) for transition in rollout.transitions]
        keeps_means = needs_old_means(surrogate)
        means = [torch.full_like(transition.x_PXNC, torch.nan) for transition in rollout.transitions]
        return cls(log_probs, means if keeps_means else [])


@dataclass(frozen=True)
class _Rows:
    """Some latents that a transition starts from, and the members that each of them scores."""

    index: int
    transition: Transition
    prompt_B: Tensor
    x_of_B: Tensor

    @property
    def is_shared(self) -> bool:
        return self.transition.x_PXNC.shape[1] == 1

    def latents(self) -> Tensor:
        return self.transition.x_PXNC[self.prompt_B, self.x_of_B]

    def members(self, values_PG: Tensor) -> Tensor:
        """Returns [B, M, ...] of something that is [P, G, ...]."""
        prompts, members = self.prompt_B.to(values_PG.device), self.x_of_B.to(values_PG.device)
        return values_PG[prompts] if self.is_shared else values_PG[prompts, members][:, None]

    def put(self, target_PG: Tensor, values_BM: Tensor) -> None:
        """Writes [B, M] where it belongs in [P, G]."""
        prompts, members = self.prompt_B.to(target_PG.device), self.x_of_B.to(target_PG.device)
        if self.is_shared:
            target_PG[prompts] = values_BM.to(target_PG.device)
        else:
            target_PG[prompts, members] = values_BM[:, 0].to(target_PG.device)


class PolicyLoss:
    """Accumulates the gradient of the objective over a rollout; `scale` is applied to the loss before a backward.

    `runs_all`: also what has no gradient is run, so that the number of forwards does not depend on the rewards.
    """

    def __init__(
        self,
        model: ModelAdapter,
        sampler: Sampler,
        objective: Objective,
        scale: Callable[[Tensor], Tensor] = lambda loss: loss,
        *,
        runs_all: bool = False,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._objective = objective
        self._scale = scale
        self._runs_all = runs_all or objective.kl_weight > 0

    def accumulate(
        self,
        rollout: Rollout,
        advantages: Advantages,
        embeds: PromptEmbeds,
        old: OldPolicy,
        prompts: Sequence[int] | None = None,
    ) -> LossStats:
        """Adds the gradient of the mean over transitions and the given prompts (None: all), and fills in `old`.

        Groups whose rewards are all equal have no gradient, so they are not even run unless the KL term or
        `runs_all` needs them.

        Raises:
            NonFiniteError: the loss of a transition is not finite.
        """
        chosen = range(advantages.is_flat_AP.shape[1]) if prompts is None else prompts
        num_cells = len(rollout.transitions) * len(chosen)
        values_APG = torch.as_tensor(advantages.values_APG, dtype=torch.float32)
        sums, evaluations = np.zeros(4), 0
        for index, transition in enumerate(rollout.transitions):
            is_flat_P = advantages.is_flat_AP[transition.group]
            kept = [p for p in chosen if self._runs_all or not is_flat_P[p]]
            for rows in self._micro_batches(index, transition, kept):
                self._sampler.check_stop()
                sums += self._accumulate_rows(rollout.plan, rows, values_APG[transition.group], embeds, old, num_cells)
                evaluations += len(rows.prompt_B)
        loss, kl, clipped, deviation = (sums / num_cells).tolist()
        return LossStats(loss, kl, clipped, deviation, evaluations)

    @torch.no_grad()
    def remember(self, rollout: Rollout, embeds: PromptEmbeds, old: OldPolicy, prompts: Sequence[int]) -> int:
        """Asks the present policy about transitions that it will have left when their turn comes.

        Fills in `old` and returns network evaluations.
        """
        evaluations = 0
        for index, transition in enumerate(rollout.transitions):
            for rows in self._micro_batches(index, transition, prompts):
                self._sampler.check_stop()
                self._note(rows, self._scored(rollout.plan, rows, self._velocity(rollout.plan, rows, embeds)), old)
                evaluations += len(rows.prompt_B)
        return evaluations

    def _micro_batches(self, index: int, transition: Transition, prompts: Sequence[int]) -> list[_Rows]:
        count = transition.x_PXNC.shape[1]
        device = transition.x_PXNC.device
        pairs = [(p, x) for p in prompts for x in range(count)]
        parts = torch.split(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2), self._sampler.micro_batch_size)
        return [_Rows(index, transition, part[:, 0].to(device), part[:, 1].to(device)) for part in parts if len(part)]

    def _velocity(self, plan: MergePlan, rows: _Rows, embeds: PromptEmbeds) -> Tensor:
        t = plan.sigmas[rows.transition.step.start]
        return self._model.velocity(rows.latents(), t, embeds[rows.prompt_B], self._sampler.guidance)

    def _scored(self, plan: MergePlan, rows: _Rows, v_BNC: Tensor) -> Scored:
        x_next_BMNC = rows.members(rows.transition.x_next_PGNC)
        return score_step(plan, rows.transition.step, rows.latents(), v_BNC, x_next_BMNC)

    def _note(self, rows: _Rows, new: Scored, old: OldPolicy) -> Scored:
        """Fills in what is not known yet and returns what the old policy said of these rows."""
        log_probs_PG = old.log_probs_PG[rows.index]
        known_BM = rows.members(log_probs_PG).to(new.log_prob_PG.device)
        is_new = known_BM.isnan()
        log_prob_BM = torch.where(is_new, new.log_prob_PG.detach(), known_BM)
        rows.put(log_probs_PG, log_prob_BM)
        if not old.means_PXNC:
            return Scored(log_prob_BM, new.mean_PXNC.detach())
        means_PXNC = old.means_PXNC[rows.index]
        known_BNC = means_PXNC[rows.prompt_B, rows.x_of_B]
        mean_BNC = torch.where(known_BNC.isnan(), new.mean_PXNC[:, 0].detach(), known_BNC)
        means_PXNC[rows.prompt_B, rows.x_of_B] = mean_BNC
        return Scored(log_prob_BM, mean_BNC[:, None])

    def _accumulate_rows(
        self, plan: MergePlan, rows: _Rows, values_PG: Tensor, embeds: PromptEmbeds, old: OldPolicy, num_cells: int
    ) -> np.ndarray:
        """Runs one micro-batch forward and backward; returns sums of loss, KL, clipped and |ratio - 1| over cells."""
        objective, step = self._objective, rows.transition.step
        v_BNC = self._velocity(plan, rows, embeds)
        new = self._scored(plan, rows, v_BNC)
        terms = surrogate_loss(
            objective.surrogate,
            new,
            self._note(rows, new, old),
            rows.members(values_PG).to(v_BNC.device),
            std=plan.gaussian(step).std,
            delta=plan.sigmas[step.start] - plan.sigmas[step.end],
            clip_range=objective.clip_range,
            divergence_limit=objective.divergence_limit,
        )
        group_size, num_latents = rows.transition.x_next_PGNC.shape[1], rows.transition.x_PXNC.shape[1]
        loss = objective.step_weights.get(step.start, 1.0) * terms.loss_PG.sum() / group_size
        kl = (
            self._velocity_kl(plan, rows, v_BNC, embeds) / num_latents
            if objective.kl_weight > 0
            else loss.new_zeros(())
        )
        total = loss + objective.kl_weight * kl
        if not torch.isfinite(total):
            raise NonFiniteError(f"the loss of active step {step.start} is {total.item()}")
        torch.autograd.backward(self._scale(total / num_cells))
        outside = terms.is_outside_PG.float().sum() / group_size
        deviation = (terms.ratio_PG - 1).abs().sum() / group_size
        return torch.stack([total.detach(), kl.detach(), outside, deviation]).double().cpu().numpy()

    def _velocity_kl(self, plan: MergePlan, rows: _Rows, v_BNC: Tensor, embeds: PromptEmbeds) -> Tensor:
        """Returns the sum over rows of the mean squared distance to the base model's velocity.

        Up to a factor that depends on the step alone, this is the KL divergence of the two transitions; without the
        factor it has one scale over the schedule.
        """
        with torch.no_grad(), base_weights(self._model.transformer):
            base_BNC = self._velocity(plan, rows, embeds)
        return torch.square(v_BNC - base_BNC).mean(dim=(-2, -1)).sum()


def score_step(plan: MergePlan, step: MergedStep, x_BNC: Tensor, v_BNC: Tensor, x_next_BMNC: Tensor) -> Scored:
    """Returns log-probability [B, M] and mean [B, 1, N, C] of drawn latents under a velocity."""
    scored = step_between(plan, step, x_BNC[:, None], v_BNC[:, None], x_next=x_next_BMNC)
    return Scored(scored.log_prob, scored.mean)
