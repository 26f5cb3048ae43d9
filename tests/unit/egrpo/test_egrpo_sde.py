"""The kernel against a float64 derivation from the paper's equation."""

import itertools
import math

import numpy as np
import pytest
import torch

from egrpo.schedule import entropy, shifted_sigmas
from egrpo.sde import ode_step, sde_step

SIGMAS = shifted_sigmas(16, 3.0)
ETA = 0.7


def reference(x: np.ndarray, v: np.ndarray, t: float, t_next: float, t_1: float) -> tuple[np.ndarray, float]:
    """Mean and std of eq. 2 in float64, by the score: v and the score of a rectified flow determine each other.

    x0 = x - t v and x1 = x + (1 - t) v are the predicted data and noise; the score is -x1/t. The marginal-preserving
    SDE run backwards adds sigma^2/2 times the score to the drift.
    """
    sigma = ETA * math.sqrt(t / ((1 - t) if t < 1 else (1 - t_1)))
    score = -(x + (1 - t) * v) / t
    mean = x - (v - sigma**2 / 2 * score) * (t - t_next)
    return mean, sigma * math.sqrt(t - t_next)


@pytest.mark.parametrize(("i", "length"), [(0, 1), (0, 3), (1, 1), (5, 3), (15, 1)])
def test_draw_and_score_match_the_derivation(i: int, length: int) -> None:
    rng = np.random.default_rng(i)
    x, v, noise = (rng.standard_normal((3, 5, 7)) for _ in range(3))
    t, t_next = SIGMAS[i], SIGMAS[i + length]
    mean, std = reference(x, v, t, t_next, SIGMAS[1])
    x_next = mean + std * noise
    density = -((x_next - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    drawn = sde_step(*_float32(x, v), t, t_next, t_1=SIGMAS[1], eta=ETA, noise=_float32(noise)[0])
    assert drawn.std == pytest.approx(std, rel=1e-12)
    np.testing.assert_allclose(drawn.mean.numpy(), mean, atol=2e-6)
    np.testing.assert_allclose(drawn.x_next.numpy(), x_next, atol=2e-6)
    np.testing.assert_allclose(drawn.log_prob.numpy(), density.mean(axis=(1, 2)), atol=2e-6)


def test_the_std_is_the_entropy_of_the_plan() -> None:
    x = torch.zeros(1, 1, 1)
    for i in range(8):
        step = sde_step(x, x, SIGMAS[i], SIGMAS[i + 2], t_1=SIGMAS[1], eta=ETA, noise=x)
        assert math.sqrt(2 * math.pi * math.e) * step.std == pytest.approx(entropy(SIGMAS, i, i + 2, ETA))


def test_a_drawn_transition_scores_the_same() -> None:
    x, v, noise = (torch.randn(4, 16, 64, generator=torch.Generator().manual_seed(s)) for s in range(3))
    drawn = sde_step(x, v, 0.9, 0.8, t_1=0.98, eta=ETA, noise=noise)
    scored = sde_step(x, v, 0.9, 0.8, t_1=0.98, eta=ETA, x_next=drawn.x_next)
    assert torch.equal(scored.log_prob, drawn.log_prob)


def test_everything_is_float32_whatever_the_model_gives() -> None:
    x, v = torch.randn(2, 4, 8).bfloat16(), torch.randn(2, 4, 8).bfloat16()
    step = sde_step(x, v, 0.9, 0.8, t_1=0.98, eta=ETA, noise=torch.randn(2, 4, 8))
    assert {step.mean.dtype, step.x_next.dtype, step.log_prob.dtype, ode_step(x, v, 0.9, 0.8).dtype} == {torch.float32}


def test_a_group_that_shares_latent_and_velocity_broadcasts() -> None:
    x, v, x_next = torch.randn(3, 1, 4, 8), torch.randn(3, 1, 4, 8), torch.randn(3, 5, 4, 8)
    shared = sde_step(x, v, 0.9, 0.8, t_1=0.98, eta=ETA, x_next=x_next).log_prob
    alone = sde_step(x.expand_as(x_next), v.expand_as(x_next), 0.9, 0.8, t_1=0.98, eta=ETA, x_next=x_next).log_prob
    assert shared.shape == (3, 5)
    assert torch.equal(shared, alone)


def test_many_small_steps_keep_the_marginal() -> None:
    """For N(0, 1) data and exact velocity, 400 SDE steps end at the data's own std."""
    sigmas = shifted_sigmas(400, 3.0)
    x = torch.randn(20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for t, t_next in itertools.pairwise(sigmas):
        v = (2 * t - 1) / ((1 - t) ** 2 + t**2) * x
        noise = torch.randn(x.shape, generator=generator)
        x = sde_step(x, v, t, t_next, t_1=sigmas[1], eta=ETA, noise=noise).x_next
    assert float(x.std()) == pytest.approx(1, abs=0.03)


def test_exactly_one_mode() -> None:
    x = torch.zeros(1, 1, 1)
    for arguments in ({}, {"noise": x, "x_next": x}):
        with pytest.raises(ValueError, match="either noise"):
            sde_step(x, x, 0.9, 0.8, t_1=0.98, eta=ETA, **arguments)


@pytest.mark.parametrize(("t", "t_next"), [(0.5, 0.5), (0.5, 0.6), (1.1, 0.5), (0.5, -0.1)])
def test_time_must_fall(t: float, t_next: float) -> None:
    x = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match="time must fall"):
        sde_step(x, x, t, t_next, t_1=0.98, eta=ETA, noise=x)


def _float32(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array).float() for array in arrays]
