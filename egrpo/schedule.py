"""The schedule and the merge plan: which steps are stochastic and how far each reaches. Pure Python, float64.

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
class MergePlan:
    """The stochastic steps of a rollout, in the order of the schedule."""

    sigmas: tuple[float, ...]
    eta: float
    steps: tuple[MergedStep, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON types."""
        return {"sigmas": list(self.sigmas), "eta": self.eta, "steps": [asdict(step) for step in self.steps]}

    def network_evaluations(self, group_size: int) -> int:
        """Returns forward passes per prompt: T for the anchor and T - i - l for every tail."""
        num_steps = len(self.sigmas) - 1
        return num_steps + group_size * sum(num_steps - step.end for step in self.steps)


def shifted_sigmas(steps: int, shift: float) -> list[float]:
    """Returns the times t_0 = 1 ... t_T = 0.

    t_i = s*u / (1 + (s - 1)*u) with u = 1 - i/T. Source: E-GRPO, arXiv 2601.00423; T = 16 and s = 3 in the paper.
    """
    uniform = [1 - i / steps for i in range(steps + 1)]
    return [shift * u / (1 + (shift - 1) * u) for u in uniform]


def noise_scale(sigmas: Sequence[float], i: int, eta: float) -> float:
    """Returns sigma_i = eta * sqrt(t_i / (1 - t_i)), the diffusion coefficient at step i (eq. 2).

    At t_i = 1 the denominator is 1 - t_1, whatever the length of the step.
    """
    t = sigmas[i]
    remaining = 1 - t if t < 1 else 1 - sigmas[i + 1]
    return eta * math.sqrt(t / remaining)


def entropy(sigmas: Sequence[float], i: int, j: int, eta: float) -> float:
    """Returns H(i, j) = sqrt(2*pi*e) * sigma_i * sqrt(t_i - t_j), the exponential of the entropy per dimension.

    Source: arXiv 2601.00423, eqs. 10 and 11. Read per dimension and as an exponential, the paper's thresholds
    (0 to 2.6) fall where its ablation says they do; no other normalisation does that.
    """
    return math.sqrt(2 * math.pi * math.e * (sigmas[i] - sigmas[j])) * noise_scale(sigmas, i, eta)


def dispersion(sigmas: Sequence[float], i: int, j: int, eta: float) -> float:
    """Returns latent std / true marginal std after one SDE step from i to j, for N(0, 1) data and exact velocity.

    With m(t) = (1 - t)^2 + t^2 the exact velocity is v = (2t - 1)/m(t) * x, so the step is linear in x with factor c
    and its output variance is c^2 m(t_i) + std^2, compared with m(t_j). 1 is exact; our own measure, not the paper's.
    """
    t, delta = sigmas[i], sigmas[i] - sigmas[j]
    variance_rate = noise_scale(sigmas, i, eta) ** 2
    velocity = (2 * t - 1) / _marginal_variance(t)
    drift = variance_rate / (2 * t)
    factor = 1 - drift * delta - velocity * (1 + drift * (1 - t)) * delta
    variance = factor**2 * _marginal_variance(t) + variance_rate * delta
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
) -> MergePlan:
    """Returns the merged SDE step of every active step.

    Adaptive: the smallest length with H(i, i + l) >= threshold, never past T (arXiv 2601.00423, section 3.3.1).
    Fixed: the same length everywhere, cut at T. None: every length is 1.

    Raises:
        ConfigError: the sigmas do not fall from at most 1 to 0, or an index is not on the schedule.
        DispersionError: a step is above the limit; the message names each with its dispersion.
    """
    _check_schedule(sigmas, active)
    steps = []
    for i in active:
        length = _length(sigmas, i, eta, merging, entropy_threshold, fixed_length)
        steps.append(MergedStep(i, length, entropy(sigmas, i, i + length, eta), dispersion(sigmas, i, i + length, eta)))
    plan = MergePlan(tuple(sigmas), eta, tuple(steps))
    if dispersion_limit is not None:
        _refuse_over_dispersion(plan, dispersion_limit)
    return plan


def _length(
    sigmas: Sequence[float], i: int, eta: float, merging: Merging, threshold: float, fixed_length: int | None
) -> int:
    longest = len(sigmas) - 1 - i
    if merging == "none":
        return 1
    if merging == "fixed":
        if fixed_length is None:
            raise ConfigError("merging 'fixed' needs fixed_length")
        return min(fixed_length, longest)
    reaches = (length for length in range(1, longest) if entropy(sigmas, i, i + length, eta) >= threshold)
    return next(reaches, longest)


def _check_schedule(sigmas: Sequence[float], active: Sequence[int]) -> None:
    falling = all(a > b for a, b in itertools.pairwise(sigmas))
    if len(sigmas) < 2 or not falling or sigmas[0] > 1 or sigmas[-1] != 0:
        raise ConfigError(f"the schedule must fall from at most 1 to 0, got {list(sigmas)}")
    if not active or min(active) < 0 or max(active) >= len(sigmas) - 1:
        raise ConfigError(f"active steps must lie in 0..{len(sigmas) - 2}, got {list(active)}")


def _refuse_over_dispersion(plan: MergePlan, limit: float) -> None:
    above = [step for step in plan.steps if step.dispersion > limit]
    if above:
        named = ", ".join(f"{step.start}->{step.end} ({step.dispersion:.2f})" for step in above)
        raise DispersionError(
            f"dispersion_limit {limit:g} is exceeded by the merged steps {named}; "
            "lower entropy_threshold, fixed_length or eta, or use more sampling_steps"
        )
