"""The kernel: one deterministic and one stochastic step of a rectified flow. Nothing else draws or scores a step.

Everything here is float32, whatever the model's dtype. Axis letters: leading axes are free and broadcast, N image
tokens, C channels of a packed latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from egrpo.kernels import Kernel, step_gaussian


@dataclass(frozen=True)
class SDEStep:
    """A drawn or scored transition.

    Args:
        x_next: float32 [..., N, C].
        mean: float32 [..., N, C], the mean of the transition's Gaussian.
        std: its standard deviation, one number for all dimensions.
        log_prob: float32 [...], the log-density of x_next averaged over N and C.
    """

    x_next: Tensor
    mean: Tensor
    std: float
    log_prob: Tensor


def ode_step(x: Tensor, v: Tensor, t: float, t_next: float) -> Tensor:
    """Returns the Euler step x - (t - t_next) * v, float32 [..., N, C]."""
    return x.float() + (t_next - t) * v.float()


def sde_step(
    x: Tensor,
    v: Tensor,
    t: float,
    t_next: float,
    *,
    t_1: float,
    eta: float,
    kernel: Kernel = "flow_sde",
    noise: Tensor | None = None,
    x_next: Tensor | None = None,
) -> SDEStep:
    """Draws (`noise` given) or scores (`x_next` given) one reverse-time SDE step of a rectified flow.

        mean = x * x_factor - v * v_factor                          with the numbers of `egrpo.kernels`
        log p(x_next | x) = mean over N, C of [ -(x_next - mean)^2/(2 std^2) - log std - log(2 pi)/2 ]

    Source: E-GRPO, arXiv 2601.00423, eq. 2. The log-density is the mean over dimensions, not their sum: clip ranges
    of 1e-4 and below make sense only so, and every public implementation does it. `x`, `v`, `noise` and `x_next` are
    [..., N, C] and broadcast over the leading axes, so that a group that shares x and v is scored without repeating
    them. `t_1` is the schedule's second time, which the kernel `flow_sde` needs at t = 1. Gradients flow through `v`.

    Raises:
        ValueError: not exactly one of `noise` and `x_next` is given, or time does not fall.
    """
    if (noise is None) == (x_next is None):
        raise ValueError("give either noise (to draw) or x_next (to score)")
    step = step_gaussian(kernel, t, t_next, t_1=t_1, eta=eta)
    mean = x.float() * step.x_factor - v.float() * step.v_factor
    if x_next is None:
        assert noise is not None
        x_next = mean + step.std * noise.float()
    return SDEStep(x_next, mean, step.std, _log_prob(x_next.float(), mean, step.std))


def _log_prob(x_next: Tensor, mean: Tensor, std: float) -> Tensor:
    squares = torch.square((x_next - mean) / std).mean(dim=(-2, -1))
    return -0.5 * squares - (math.log(std) + 0.5 * math.log(2 * math.pi))
