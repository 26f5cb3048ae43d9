"""The Gaussian of one stochastic step, as numbers: every mean and every standard deviation comes from here.

A kernel turns a pair of times into three numbers: the transition is N(x * x_factor - v * v_factor, std^2). `egrpo.sde`
applies them to tensors, `egrpo.schedule` derives entropy and dispersion from them. Pure Python, float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kernel = Literal["flow_sde", "cps"]


@dataclass(frozen=True)
class Gaussian:
    """One step's Gaussian: mean = x * x_factor - v * v_factor, and its standard deviation, which is above 0."""

    x_factor: float
    v_factor: float
    std: float


def step_gaussian(kernel: Kernel, t: float, t_next: float, *, t_1: float, eta: float) -> Gaussian:
    """Returns the Gaussian of a kernel's step from t to t_next.

    Raises:
        ValueError: time does not fall within [0, 1], or the kernel has no noise there.
    """
    if not 1 >= t > t_next >= 0:
        raise ValueError(f"time must fall within [0, 1], got {t} -> {t_next}")
    return _flow_sde(t, t_next, t_1, eta) if kernel == "flow_sde" else _cps(t, t_next, eta)


def _flow_sde(t: float, t_next: float, t_1: float, eta: float) -> Gaussian:
    """Euler-Maruyama of the reverse SDE that keeps the marginals as the step becomes short.

    With delta = t - t_next and sigma^2 = eta^2 * t/(1 - t), where 1 - t_1 stands for 1 - t at t = 1:

        mean = x * (1 - sigma^2/(2t) * delta) - v * (1 + sigma^2 * (1 - t)/(2t)) * delta
        std  = sigma * sqrt(delta)

    Source: E-GRPO, arXiv 2601.00423, eq. 2. A merged step is the same formula with a larger delta.
    """
    delta = t - t_next
    variance_rate = eta**2 * t / (1 - t if t < 1 else 1 - t_1)
    drift = variance_rate / (2 * t)
    return Gaussian(1 - drift * delta, (1 + drift * (1 - t)) * delta, math.sqrt(variance_rate * delta))


def _cps(t: float, t_next: float, eta: float) -> Gaussian:
    """The coefficients-preserving step: predicted data and noise are mixed anew, and noise takes part of its share.

        mean = x0 * (1 - t_next) + x1 * sqrt(t_next^2 - std^2)      with x0 = x - t*v, x1 = x + (1 - t)*v
        std  = t_next * sin(eta * pi/2)

    Source: arXiv 2509.05952. The total share of noise is t_next, however long the step, so a merged step does not
    over-disperse. There is no noise at t_next = 0, and eta lies in (0, 1].
    """
    std = t_next * math.sin(eta * math.pi / 2)
    if std <= 0:
        raise ValueError(f"the cps kernel has no noise on a step to t = {t_next}")
    kept = t_next * math.cos(eta * math.pi / 2)
    return Gaussian(1 - t_next + kept, t * (1 - t_next) - (1 - t) * kept, std)
