"""Anchor, branches and tails: one sweep along the schedule (Algorithm 1 and Figure 2 of arXiv 2601.00423).

Every prompt has a common path, the plain ODE from its initial noise; run to the end it is the anchor. A group leaves
it at its first stochastic step: the path's latent and its known velocity give G members by one SDE step. They go on by
what their plan says, SDE or ODE, and end at t = 0. All latents at the same step index, whatever prompt, group or path
they belong to, pass the network together. For E-GRPO a group has one stochastic step and the rest of its way is a tail
by the ODE; trajectory methods have more. Where the members share no noise, each has a common path of its own.

Axis letters: A group of the plan (for E-GRPO: active step), K tail of a member, P prompt, G group member, X latents of
the common path (1 if shared, else G), R row of a sweep (any latent), N image tokens, C channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from egrpo.models.adapter import PromptEmbeds
from egrpo.schedule import GroupPlan, MergedStep, MergePlan
from egrpo.sde import SDEStep, ode_step, sde_step

# Draws standard normal noise of a shape [P, G, N, C], float32 on the CPU.
Noise = Callable[[Sequence[int]], Tensor]


class VelocityModel(Protocol):
    """What the rollout needs of a model."""

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the velocity of a batch at one time."""
        ...


@dataclass(frozen=True)
class Transition:
    """A stochastic step that is trained, of one group: from x at step.start to `x_next_PGNC` at step.end.

    Args:
        group: index of the group, whose advantages apply.
        step: where it starts and ends.
        x_PXNC: X is 1 where the members share the latent, and with it the velocity and the mean; else G.
        x_next_PGNC: what was drawn.
    """

    group: int
    step: MergedStep
    x_PXNC: Tensor
    x_next_PGNC: Tensor


@dataclass(frozen=True)
class Rollout:
    """What one sweep produced. Final latents are at t = 0.

    Args:
        plan: the plan whose sigmas, eta and kernel were used.
        transitions: what is trained, in the order of groups and of the schedule.
        anchor_PNC: final latents of the anchors, or none [0, N, C].
        tails_AKPGNC: final latents of the members.
        network_evaluations: latents that passed the network.
        dispersion_A: std of the latents after each group's first stochastic step, divided by that of the common path
            at the same time; empty where that path is not run so far.
    """

    plan: MergePlan
    transitions: tuple[Transition, ...]
    anchor_PNC: Tensor
    tails_AKPGNC: Tensor
    network_evaluations: int
    dispersion_A: tuple[float, ...] = ()

    def final_latents(self) -> Tensor:
        """All final latents as rows: the anchors, then the tails in the order group, tail, prompt, member."""
        return torch.cat([self.anchor_PNC, self.tails_AKPGNC.flatten(0, 3)])


def step_between(
    plan: MergePlan,
    step: MergedStep,
    x: Tensor,
    v: Tensor,
    *,
    noise: Tensor | None = None,
    x_next: Tensor | None = None,
) -> SDEStep:
    """Draws or scores a stochastic step of a plan."""
    t, t_next = plan.sigmas[step.start], plan.sigmas[step.end]
    t_1, eta = plan.sigmas[1], plan.eta
    return sde_step(x, v, t, t_next, t_1=t_1, eta=eta, kernel=plan.kernel, noise=noise, x_next=x_next)


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
    groups: Sequence[GroupPlan],
    x_PXNC: Tensor,
    embeds: PromptEmbeds,
    group_size: int,
    *,
    noise: Noise,
    draws_anchor: bool = True,
) -> Rollout:
    """Rolls out the groups of one update.

    `x_PXNC` is the initial noise of every prompt: one, shared by its groups, or one for each member; `embeds` holds
    one row per prompt. `noise` is drawn once for every stochastic step of a group, in the order of the schedule, so
    that it depends on nothing else. Without `draws_anchor` the common path ends where the last group has left it.
    """
    sweep = _Sweep(plan, groups, x_PXNC, group_size, noise, draws_anchor)
    evaluations = 0
    for i, t in enumerate(plan.sigmas[:-1]):
        moving = [track for track in sweep.tracks if track.at == i]
        if not moving:
            continue
        x_RNC = torch.cat([track.x_PMNC.flatten(0, 1) for track in moving])
        v_RNC = sampler.velocity(x_RNC, t, embeds, torch.cat([track.prompts for track in moving]))
        evaluations += len(x_RNC)
        for track, v in zip(moving, torch.split(v_RNC, [track.num_rows for track in moving]), strict=True):
            sweep.advance(track, v.reshape(track.x_PMNC.shape))
    return sweep.finish(evaluations)


@dataclass
class _Track:
    """Latents [P, M, N, C] that travel together: the common paths, or one tail of a group's members."""

    x_PMNC: Tensor
    at: int
    group: int | None = None
    tail: int = 0
    stride: int = 1
    ahead: tuple[MergedStep, ...] = ()

    @property
    def num_rows(self) -> int:
        return self.x_PMNC.shape[0] * self.x_PMNC.shape[1]

    @property
    def prompts(self) -> Tensor:
        count, members = self.x_PMNC.shape[:2]
        return torch.arange(count, device=self.x_PMNC.device).repeat_interleave(members)


class _Sweep:
    """The tracks of a rollout, and what they leave behind."""

    def __init__(
        self,
        plan: MergePlan,
        groups: Sequence[GroupPlan],
        x_PXNC: Tensor,
        group_size: int,
        noise: Noise,
        draws_anchor: bool,
    ) -> None:
        self._plan, self._groups, self._group_size = plan, groups, group_size
        self._noise, self._draws_anchor = noise, draws_anchor
        self._end = len(plan.sigmas) - 1
        self._last_branch = max(group.steps[0].start for group in groups)
        self._transitions: list[Transition] = []
        self._spread = [0.0] * len(groups)
        self._path_spread: dict[int, float] = {}
        self._path = _Track(x_PXNC.float(), 0)
        self.tracks = [self._path]

    def advance(self, track: _Track, v_PMNC: Tensor) -> None:
        """Moves a track on by its known velocity: groups leave the common path, members take their next step."""
        if track is self._path:
            self._advance_path(v_PMNC)
        elif track.ahead and track.ahead[0].start == track.at:
            self._draw(track, track.x_PMNC, v_PMNC)
        else:
            self._step(track, v_PMNC)

    def finish(self, evaluations: int) -> Rollout:
        """Returns the rollout, its parts in the order of the plan."""
        tails = {(track.group, track.tail): track.x_PMNC for track in self.tracks if track is not self._path}
        stacked = [
            torch.stack([tails[a, k] for k in range(len(group.strides))]) for a, group in enumerate(self._groups)
        ]
        anchor_PNC = self._path.x_PMNC[:, 0]
        measured = [
            spread / self._path_spread[group.steps[0].end]
            for spread, group in zip(self._spread, self._groups, strict=True)
            if group.steps[0].end in self._path_spread
        ]
        return Rollout(
            self._plan,
            tuple(sorted(self._transitions, key=lambda transition: (transition.group, transition.step.start))),
            anchor_PNC if self._draws_anchor else anchor_PNC[:0],
            torch.stack(stacked),
            evaluations,
            tuple(measured) if len(measured) == len(self._groups) else (),
        )

    def _advance_path(self, v_PXNC: Tensor) -> None:
        path = self._path
        for a, group in enumerate(self._groups):
            if group.steps[0].start == path.at:
                member = _Track(path.x_PMNC, path.at, a, 0, 1, group.steps)
                self.tracks.append(member)
                self._draw(member, path.x_PMNC, v_PXNC)
        if self._draws_anchor or path.at < self._last_branch:
            self._step(path, v_PXNC)
            self._path_spread[path.at] = float(path.x_PMNC.std())
        else:
            path.at = self._end

    def _draw(self, track: _Track, x_PMNC: Tensor, v_PMNC: Tensor) -> None:
        """Takes a group's next stochastic step, keeps it if it is trained, and parts the tails after the last."""
        step, track.ahead = track.ahead[0], track.ahead[1:]
        assert track.group is not None
        group = self._groups[track.group]
        drawn_PGNC = self._noise((len(x_PMNC), self._group_size, *x_PMNC.shape[2:])).to(x_PMNC.device)
        x_next_PGNC = step_between(self._plan, step, x_PMNC, v_PMNC, noise=drawn_PGNC).x_next
        if step in group.trained:
            # Copies made outside inference mode: the policy update differentiates through a forward that starts there.
            with torch.inference_mode(False):
                self._transitions.append(Transition(track.group, step, x_PMNC.clone(), x_next_PGNC.clone()))
        if step == group.steps[0]:
            self._spread[track.group] = float(x_next_PGNC.std())
        track.x_PMNC, track.at = x_next_PGNC, step.end
        if not track.ahead:
            track.stride = group.strides[0]
            self.tracks += [
                _Track(x_next_PGNC, step.end, track.group, k, stride)
                for k, stride in enumerate(group.strides[1:], start=1)
            ]

    def _step(self, track: _Track, v_PMNC: Tensor) -> None:
        sigmas, following = self._plan.sigmas, min(track.at + track.stride, self._end)
        track.x_PMNC = ode_step(track.x_PMNC, v_PMNC, sigmas[track.at], sigmas[following])
        track.at = following
