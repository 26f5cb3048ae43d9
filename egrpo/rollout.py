"""Anchor, branches and tails: one sweep along the schedule (Algorithm 1 and Figure 2 of arXiv 2601.00423).

Every prompt has one anchor, the plain ODE from its initial noise. At an active step i the anchor's latent and its
known velocity give G branches by one SDE step to i + l; each then follows the ODE from i + l to t = 0 as a tail. All
latents at the same step index, whatever prompt or branch they belong to, pass the network together: T batched forwards
in all. Only the branch draws randomness, so only it is scored by the policy update.

Axis letters: A active step, P prompt, G group member, R row of a sweep (any latent), N image tokens, C channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from egrpo.models.adapter import PromptEmbeds
from egrpo.schedule import MergedStep, MergePlan
from egrpo.sde import ode_step, sde_step

# Draws standard normal noise of a shape, float32 on the CPU.
Noise = Callable[[Sequence[int]], Tensor]


class VelocityModel(Protocol):
    """What the rollout needs of a model."""

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the velocity of a batch at one time."""
        ...


@dataclass(frozen=True)
class Branch:
    """The stochastic transitions of one active step: from `x_PNC` at step.start to `x_next_PGNC` at step.end."""

    step: MergedStep
    x_PNC: Tensor
    x_next_PGNC: Tensor


@dataclass(frozen=True)
class Rollout:
    """What one sweep produced. Final latents are at t = 0.

    Args:
        plan: the plan whose sigmas and eta were used.
        branches: one per active step of this rollout, in order.
        anchor_PNC: final latents of the anchors.
        tails_APGNC: final latents of the branches.
        network_evaluations: latents that passed the network.
    """

    plan: MergePlan
    branches: tuple[Branch, ...]
    anchor_PNC: Tensor
    tails_APGNC: Tensor
    network_evaluations: int

    def final_latents(self) -> Tensor:
        """All final latents as rows: the anchors, then the tails in the order active step, prompt, member."""
        return torch.cat([self.anchor_PNC, self.tails_APGNC.flatten(0, 2)])


@dataclass(frozen=True)
class Sampler:
    """The network as the rollout sees it: batched velocities at one time, in micro-batches.

    `check_stop` is called before every micro-batch and may raise to abandon the rollout.
    """

    model: VelocityModel
    guidance: float
    micro_batch_size: int
    check_stop: Callable[[], None] = lambda: None

    def velocity(self, x_RNC: Tensor, t: float, embeds: PromptEmbeds, prompt_R: Tensor) -> Tensor:
        """Returns velocities of any number of rows; `prompt_R` says which prompt each row belongs to."""
        parts = []
        # As many micro-batches as are needed, of one size: a small last one would be slow for its size.
        count = -(-len(x_RNC) // self.micro_batch_size)
        for x_BNC, rows in zip(torch.chunk(x_RNC, count), torch.chunk(prompt_R, count), strict=True):
            self.check_stop()
            parts.append(self.model.velocity(x_BNC, t, embeds[rows], self.guidance))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.inference_mode()
    def ode(self, x_RNC: Tensor, sigmas: Sequence[float], embeds: PromptEmbeds, prompt_R: Tensor) -> Tensor:
        """Returns the latents at t = 0 of the plain ODE from the first to the last of `sigmas`."""
        for t, t_next in itertools.pairwise(sigmas):
            x_RNC = ode_step(x_RNC, self.velocity(x_RNC, t, embeds, prompt_R), t, t_next)
        return x_RNC


@torch.inference_mode()
def roll_out(
    sampler: Sampler,
    plan: MergePlan,
    steps: Sequence[MergedStep],
    x_PNC: Tensor,
    embeds: PromptEmbeds,
    group_size: int,
    *,
    noise: Noise,
) -> Rollout:
    """Rolls out anchors and, from the given steps of the plan, groups of branches with their tails.

    `x_PNC` is one initial noise per prompt, shared by its whole group; `embeds` holds one row per prompt. Branch noise
    is drawn once per active step, so that it depends on nothing but the order of steps.
    """
    num_prompts = len(x_PNC)
    by_start = {step.start: step for step in steps}
    prompt_R = torch.arange(num_prompts, device=x_PNC.device)
    rows_of_group = prompt_R.repeat_interleave(group_size)
    x_RNC, joining, joined, branches, evaluations = x_PNC.float(), dict[int, list[Branch]](), [], [], 0
    for i, (t, t_next) in enumerate(itertools.pairwise(plan.sigmas)):
        v_RNC = sampler.velocity(x_RNC, t, embeds, prompt_R)
        evaluations += len(x_RNC)
        if i in by_start:
            branch = _branch(plan, by_start[i], x_RNC[:num_prompts], v_RNC[:num_prompts], group_size, noise)
            branches.append(branch)
            joining.setdefault(branch.step.end, []).append(branch)
        x_RNC = ode_step(x_RNC, v_RNC, t, t_next)
        for branch in joining.pop(i + 1, []):
            x_RNC = torch.cat([x_RNC, branch.x_next_PGNC.flatten(0, 1)])
            prompt_R = torch.cat([prompt_R, rows_of_group])
            joined.append(branch.step.start)
    tails = dict(
        zip(joined, x_RNC[num_prompts:].reshape(len(joined), num_prompts, group_size, *x_PNC.shape[1:]), strict=True)
    )
    tails_APGNC = torch.stack([tails[branch.step.start] for branch in branches])
    return Rollout(plan, tuple(branches), x_RNC[:num_prompts], tails_APGNC, evaluations)


def _branch(plan: MergePlan, step: MergedStep, x_PNC: Tensor, v_PNC: Tensor, group_size: int, noise: Noise) -> Branch:
    shape = (len(x_PNC), group_size, *x_PNC.shape[1:])
    noise_PGNC = noise(shape).to(x_PNC.device)
    drawn = sde_step(
        x_PNC[:, None],
        v_PNC[:, None],
        plan.sigmas[step.start],
        plan.sigmas[step.end],
        t_1=plan.sigmas[1],
        eta=plan.eta,
        noise=noise_PGNC,
    )
    # Copies made outside inference mode: the policy update differentiates through a forward that starts from them.
    with torch.inference_mode(False):
        return Branch(step, x_PNC.clone(), drawn.x_next.clone())
