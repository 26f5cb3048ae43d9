"""The schedule and the plan: which steps are stochastic and how far each reaches. Pure Python, float64.

Notation of the paper (arXiv 2601.00423): flow time t runs from 1 (noise) to 0 (image); `sigmas` are the T + 1 times
t_0 = 1 > t_1 > ... > t_T = 0; eta is the paper's noise scale a. Nothing here knows a model or a tensor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from egrpo.errors import ConfigError, DispersionError
from egrpo.kernels import Gaussian, Kernel, step_gaussian

Merging = Literal["adaptive", "fixed", "none"]


@dataclass(frozen=True)
class MergedStep:
    """One SDE step from `start` to `start + length`, with its entropy H and its dispersion."""

    start: int
    length: int
    entropy: float
    dispersion: float

    @property
    def end(self) -> int:
        """Index at which the ODE takes over."""
        return self.start + self.length


@dataclass(frozen=True)
class GroupPlan:
    """What one group per prompt does: its members leave their common path at the first of `steps`.

    They take every step of `steps` by the SDE and all others by the ODE. The transitions of `trained` are what the
    policy learns from. After its last stochastic step a member has one tail for each of `strides`: a tail of stride k
    takes every k-th time of the schedule, the last step as short as it must be to end at t = 0.
    """

    steps: tuple[MergedStep, ...]
    trained: tuple[MergedStep, ...]
    strides: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class MergePlan:
    """The steps of a schedule that may be stochastic, and the kernel that takes them."""

    sigmas: tuple[float, ...]
    eta: float
    steps: tuple[MergedStep, ...]
    kernel: Kernel = "flow_sde"

    def gaussian(self, step: MergedStep) -> Gaussian:
        """Returns the numbers of a stochastic step's transition."""
        t, t_next = self.sigmas[step.start], self.sigmas[step.end]
        return step_gaussian(self.kernel, t, t_next, t_1=self.sigmas[1], eta=self.eta)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON types."""
        steps = [asdict(step) for step in self.steps]
        return {"sigmas": list(self.sigmas), "eta": self.eta, "kernel": self.kernel, "steps": steps}


def shifted_sigmas(steps: int, shift: float) -> list[float]:
    """Returns the times t_0 = 1 ... t_T = 0.

    t_i = s*u / (1 + (s - 1)*u) with u = 1 - i/T. Source: E-GRPO, arXiv 2601.00423; T = 16 and s = 3 in the paper.
    """
    uniform = [1 - i / steps for i in range(steps + 1)]
    return [shift * u / (1 + (shift - 1) * u) for u in uniform]


def entropy(sigmas: Sequence[float], i: int, j: int, eta: float, kernel: Kernel = "flow_sde") -> float:
    """Returns H(i, j) = sqrt(2*pi*e) * std, the exponential of the entropy per dimension of a step from i to j.

    For `flow_sde` that is sqrt(2*pi*e) * sigma_i * sqrt(t_i - t_j). Source: arXiv 2601.00423, eqs. 10 and 11. Read per
    dimension and as an exponential, the paper's thresholds (0 to 2.6) fall where its ablation says they do; no other
    normalisation does that.
    """
    return math.sqrt(2 * math.pi * math.e) * step_gaussian(kernel, sigmas[i], sigmas[j], t_1=sigmas[1], eta=eta).std


def dispersion(sigmas: Sequence[float], i: int, j: int, eta: float, kernel: Kernel = "flow_sde") -> float:
    """Returns latent std / true marginal std after one SDE step from i to j, for N(0, 1) data and exact velocity.

    With m(t) = (1 - t)^2 + t^2 the exact velocity is v = (2t - 1)/m(t) * x, so the step is linear in x with factor c
    and its output variance is c^2 m(t_i) + std^2, compared with m(t_j). 1 is exact; our own measure, not the paper's.
    """
    t = sigmas[i]
    step = step_gaussian(kernel, t, sigmas[j], t_1=sigmas[1], eta=eta)
    factor = step.x_factor - step.v_factor * (2 * t - 1) / _marginal_variance(t)
    variance = factor**2 * _marginal_variance(t) + step.std**2
    return math.sqrt(variance / _marginal_variance(sigmas[j]))


def _marginal_variance(t: float) -> float:
    return (1 - t) ** 2 + t**2


def active_indices(active: float | Sequence[int], num_steps: int) -> list[int]:
    """Returns the indices of the active steps: a leading fraction of the schedule, or the given ones."""
    if isinstance(active, (int, float)):
        return list(range(max(1, round(active * num_steps))))
    return list(active)


def merge_plan(
    sigmas: Sequence[float],
    *,
    eta: float,
    active: Sequence[int],
    merging: Merging = "adaptive",
    entropy_threshold: float = 2.2,
    fixed_length: int | None = None,
    dispersion_limit: float | None = None,
    kernel: Kernel = "flow_sde",
) -> MergePlan:
    """Returns the merged SDE step of every active step.

    Adaptive: the smallest length with H(i, i + l) >= threshold, never past T (arXiv 2601.00423, section 3.3.1); where
    no length reaches it, the one of highest entropy. Under `flow_sde` that is the longest; under `cps` entropy falls
    with the length, so it is 1. Fixed: the same length everywhere, cut at T. None: every length is 1. A `cps` step
    never ends at t = 0, where it would have no noise.

    Raises:
        ConfigError: the sigmas do not fall from at most 1 to 0, an index is not on the schedule or cannot be active.
        DispersionError: a step is above the limit; the message names each with its dispersion.
    """
    _check_schedule(sigmas, active, last=len(sigmas) - (2 if kernel == "flow_sde" else 3))
    end = len(sigmas) - (1 if kernel == "flow_sde" else 2)
    steps = []
    for i in active:
        entropies = [entropy(sigmas, i, j, eta, kernel) for j in range(i + 1, end + 1)]
        length = _length(entropies, merging, entropy_threshold, fixed_length)
        steps.append(MergedStep(i, length, entropies[length - 1], dispersion(sigmas, i, i + length, eta, kernel)))
    plan = MergePlan(tuple(sigmas), eta, tuple(steps), kernel)
    if dispersion_limit is not None:
        _refuse_over_dispersion(plan, dispersion_limit)
    return plan


def network_evaluations(
    plan: MergePlan,
    groups: Sequence[GroupPlan],
    group_size: int,
    *,
    shares_noise: bool = True,
    draws_anchor: bool = True,
) -> int:
    """Returns the forward passes per prompt of a rollout of these groups.

    The common path is one latent, or one per member, as far as the last group leaves it or to the end. To branch costs
    nothing: the velocity there is the path's. With the anchor and single tails: T + G * sum of (T - i - l).
    """
    num_steps = len(plan.sigmas) - 1
    path = num_steps if draws_anchor else max(group.steps[0].start for group in groups) + 1
    members = sum(_member_evaluations(group, num_steps) for group in groups)
    return path * (1 if shares_noise else group_size) + group_size * members


def trained_latents(groups: Sequence[GroupPlan], group_size: int, *, shares_noise: bool = True) -> int:
    """Returns the latents per prompt that one pass over a rollout of these groups takes through the network.

    Before their first stochastic step all members of a group are one latent, unless each has noise of its own.
    """
    return sum(
        1 if shares_noise and step == group.steps[0] else group_size for group in groups for step in group.trained
    )


def _member_evaluations(group: GroupPlan, num_steps: int) -> int:
    """Returns how many forward passes a member of a group takes from the end of its first stochastic step to t = 0."""
    between = sum(step.start - before.end + 1 for before, step in itertools.pairwise(group.steps))
    return between + sum(-(-(num_steps - group.steps[-1].end) // stride) for stride in group.strides)


def _length(entropies: Sequence[float], merging: Merging, threshold: float, fixed_length: int | None) -> int:
    """Returns the length of a merge, given the entropies of the lengths 1, 2, ... that are possible."""
    if merging == "none":
        return 1
    if merging == "fixed":
        if fixed_length is None:
            raise ConfigError("merging 'fixed' needs fixed_length")
        return min(fixed_length, len(entropies))
    reaching = (length for length, value in enumerate(entropies, start=1) if value >= threshold)
    return next(reaching, 1 + max(range(len(entropies)), key=entropies.__getitem__))


def _check_schedule(sigmas: Sequence[float], active: Sequence[int], last: int) -> None:
    falling = all(a > b for a, b in itertools.pairwise(sigmas))
    if len(sigmas) < 2 or not falling or sigmas[0] > 1 or sigmas[-1] != 0:
        raise ConfigError(f"the schedule must fall from at most 1 to 0, got {list(sigmas)}")
    if not active or min(active) < 0 or max(active) > last:
        raise ConfigError(f"active steps must lie in 0..{last}, got {list(active)}")


def _refuse_over_dispersion(plan: MergePlan, limit: float) -> None:
    above = [step for step in plan.steps if step.dispersion > limit]
    if above:
        named = ", ".join(f"{step.start}->{step.end} ({step.dispersion:.2f})" for step in above)
        raise DispersionError(
            f"dispersion_limit {limit:g} is exceeded by the merged steps {named}; "
            "lower entropy_threshold, fixed_length or eta, or use more sampling_steps"
        )
