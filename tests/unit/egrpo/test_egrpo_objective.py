"""Surrogates against closed forms of Gaussians in float64: autograd against gradients derived by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from egrpo.config import Surrogate, parse_spec
from egrpo.errors import ConfigError
from egrpo.objective import (
    Scored,
    SurrogateTerms,
    flow_dppo,
    grpo_guard,
    mean_divergence,
    needs_old_means,
    ppo_clip,
    rectified_weights,
    sensitivity,
    surrogate_loss,
)
from egrpo.schedule import merge_plan, shifted_sigmas
from egrpo.sde import sde_step

SURROGATES: tuple[Surrogate, ...] = ("ppo_clip", "grpo_guard", "flow_dppo")
SIGMAS = shifted_sigmas(16, 3.0)
PLAN = merge_plan(SIGMAS, eta=0.7, active=range(8))
P, G, N, C = 2, 5, 3, 4
STD, DELTA = 0.4, 0.12


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_prob(x_PGNC: Tensor, mean_PXNC: Tensor, std: float = STD) -> Tensor:
    return Normal(mean_PXNC, std).log_prob(x_PGNC).mean(dim=(-2, -1))


class Gaussians:
    """Transitions drawn by an old policy, and a new one whose mean is linear in a parameter theta."""

    def __init__(self, shared: bool, moved: float) -> None:
        X = 1 if shared else G
        self.old_mean, self.slope = normal(P, X, N, C, seed=1), normal(P, X, N, C, seed=2)
        self.theta = torch.tensor(moved, dtype=torch.float64, requires_grad=True)
        self.x = self.old_mean + STD * normal(P, G, N, C, seed=3)
        self.advantages = normal(P, G, seed=4)
        self.old = Scored(log_prob(self.x, self.old_mean), self.old_mean)

    @property
    def new(self) -> Scored:
        mean = self.old_mean + self.theta * self.slope
        return Scored(log_prob(self.x, mean), mean)

    def terms(self, surrogate: Surrogate, **options: float) -> SurrogateTerms:
        limits = {"clip_range": 1e-4, "divergence_limit": 1e-5, **options}
        return surrogate_loss(surrogate, self.new, self.old, self.advantages, std=STD, delta=DELTA, **limits)

    def log_prob_slope(self) -> Tensor:
        """Returns d log p / d theta [P, G]: the mean of (x - mean) * slope / std^2."""
        mean = self.old_mean + self.theta.detach() * self.slope
        return ((self.x - mean) * self.slope / STD**2).mean(dim=(-2, -1))

    def slopes(self, terms: SurrogateTerms) -> Tensor:
        """Returns d loss / d theta of every sample [P, G], by autograd."""
        entries = [torch.autograd.grad(value, self.theta, retain_graph=True)[0] for value in terms.loss_PG.flatten()]
        return torch.stack(entries).reshape(P, G)


@pytest.mark.parametrize("shared", [True, False], ids=["shared-latent", "own-latents"])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_on_the_first_update_the_gradient_is_the_policy_gradient(surrogate: Surrogate, shared: bool) -> None:
    setting = Gaussians(shared, moved=0.3)
    new = setting.new
    setting.old = new.detached()
    terms = surrogate_loss(
        surrogate, new, setting.old, setting.advantages, std=STD, delta=DELTA, clip_range=1e-4, divergence_limit=1e-5
    )
    assert torch.equal(terms.ratio_PG, torch.ones(P, G, dtype=torch.float64))
    assert not terms.is_outside_PG.any()
    scale = STD / DELTA if surrogate == "grpo_guard" else 1.0
    torch.testing.assert_close(setting.slopes(terms), -scale * setting.advantages * setting.log_prob_slope())


def test_the_divergence_is_the_kl_divergence_per_dimension() -> None:
    old, new = normal(P, 1, N, C, seed=5), normal(P, 1, N, C, seed=6)
    exact = kl_divergence(Normal(old, STD), Normal(new, STD)).mean(dim=(-2, -1))
    torch.testing.assert_close(mean_divergence(new, old, STD), exact)
    torch.testing.assert_close(mean_divergence(old, new, STD), exact)


def test_ppo_clip_by_hand() -> None:
    log_ratio = torch.log(torch.tensor([[0.5, 1.0, 1.5]], dtype=torch.float64))
    up = ppo_clip(log_ratio, torch.full((1, 3), 2.0), 0.1)
    down = ppo_clip(log_ratio, torch.full((1, 3), -2.0), 0.1)
    assert up.loss_PG.tolist() == [[pytest.approx(-1.0), -2.0, pytest.approx(-2.2)]]
    assert down.loss_PG.tolist() == [[pytest.approx(1.8), 2.0, pytest.approx(3.0)]]
    assert up.is_outside_PG.tolist() == [[True, False, True]]


def test_ppo_clip_stops_the_gradient_only_outside_and_away() -> None:
    setting = Gaussians(True, moved=0.02)
    terms = setting.terms("ppo_clip", clip_range=0.003)
    ratio = torch.exp(setting.new.log_prob_PG - setting.old.log_prob_PG).detach()
    away = torch.sign(setting.advantages) == torch.sign(ratio - 1)
    stopped = ((ratio - 1).abs() > 0.003) & away
    assert 0 < int(stopped.sum()) < int(((ratio - 1).abs() > 0.003).sum()) < P * G
    expected = torch.where(stopped, 0.0, -setting.advantages * ratio * setting.log_prob_slope())
    torch.testing.assert_close(setting.slopes(terms), expected)


def test_the_normalised_log_ratio_is_the_draw_times_the_shift() -> None:
    """log r' = <eps, d> exactly, whatever the std: no bias, and one width at every timestep for one shift."""
    draws, dims = 4000, 12
    eps, shift = normal(draws, dims, 1, seed=7), 0.05 * normal(1, dims, 1, seed=8)
    expected = (eps * shift).mean(dim=(-2, -1))
    widths = []
    for step in PLAN.steps:
        std = step.entropy / math.sqrt(2 * math.pi * math.e)
        log_ratio = log_prob(std * eps, shift, std) - log_prob(std * eps, torch.zeros_like(shift), std)
        divergence = mean_divergence(shift, torch.zeros_like(shift), std)
        terms = grpo_guard(log_ratio, torch.ones(draws), divergence, 0.9, std=std, delta=1.0)
        normalised = torch.log(-terms.loss_PG)
        torch.testing.assert_close(normalised, expected, rtol=1e-9, atol=1e-12)
        widths.append(float(log_ratio.std()))
        # The plain ratio is what the normalisation mends: biased below 1 by the divergence of the two policies.
        assert float(log_ratio.mean()) == pytest.approx(-float(divergence), abs=4 * widths[-1] / math.sqrt(draws))
    exact_width = float(shift.norm()) / dims
    assert abs(float(expected.mean())) < 4 * exact_width / math.sqrt(draws)
    assert float(expected.std()) == pytest.approx(exact_width, rel=0.05)
    assert max(widths) / min(widths) > 1.3  # the plain log-ratio has another width at every timestep


@pytest.mark.parametrize("shared", [True, False], ids=["shared-latent", "own-latents"])
def test_grpo_guard_clips_the_normalised_ratio(shared: bool) -> None:
    setting = Gaussians(shared, moved=0.02)
    limit = 0.0015
    terms = setting.terms("grpo_guard", clip_range=limit)
    shift = setting.theta.detach() * setting.slope
    eps = (setting.x - setting.old_mean) / STD
    ratio = torch.exp((eps * shift).mean(dim=(-2, -1)))
    stopped = ((ratio - 1).abs() > limit) & (torch.sign(setting.advantages) == torch.sign(ratio - 1))
    assert 0 < int(stopped.sum()) < P * G
    assert torch.equal(terms.is_outside_PG, (ratio - 1).abs() > limit)
    # d log r' / d theta = <eps, slope>, with no trace of the bias.
    gradient = -setting.advantages * ratio * (eps * setting.slope).mean(dim=(-2, -1)) / DELTA
    torch.testing.assert_close(setting.slopes(terms), torch.where(stopped, 0.0, gradient))
    torch.testing.assert_close(terms.ratio_PG, torch.exp(setting.new.log_prob_PG - setting.old.log_prob_PG).detach())


@pytest.mark.parametrize("shared", [True, False], ids=["shared-latent", "own-latents"])
def test_flow_dppo_stops_only_what_moves_away_beyond_the_limit(shared: bool) -> None:
    setting = Gaussians(shared, moved=0.05)
    divergence = mean_divergence(setting.new.mean_PXNC, setting.old.mean_PXNC, STD).detach()
    limit = float(divergence.median())
    terms = setting.terms("flow_dppo", divergence_limit=limit)
    ratio = torch.exp(setting.new.log_prob_PG - setting.old.log_prob_PG).detach()
    seen = set()
    for p in range(P):
        for g in range(G):
            too_far = bool(divergence[p, 0 if shared else g] > limit)
            away = bool((ratio[p, g] > 1) == (setting.advantages[p, g] > 0))
            policy_gradient = -setting.advantages[p, g] * ratio[p, g] * setting.log_prob_slope()[p, g]
            expected = 0.0 if too_far and away else float(policy_gradient)
            assert float(setting.slopes(terms)[p, g]) == pytest.approx(expected, rel=1e-9, abs=1e-15)
            assert bool(terms.is_outside_PG[p, g]) == too_far
            seen.add((too_far, away))
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_flow_dppo_follows_the_four_cases_of_its_mask() -> None:
    """The published condition as it is written: A > 0 and r > 1, or A < 0 and r < 1."""
    log_ratio = torch.tensor([[0.2, -0.2, 0.2, -0.2]], dtype=torch.float64)
    advantages = torch.tensor([[1.0, -1.0, -1.0, 1.0]], dtype=torch.float64)
    far, near = torch.tensor([[0.3]]), torch.tensor([[0.1]])
    free = (-advantages * log_ratio.exp()).tolist()
    assert flow_dppo(log_ratio, advantages, far, 0.2).loss_PG.tolist() == [[0.0, 0.0, *free[0][2:]]]
    assert flow_dppo(log_ratio, advantages, near, 0.2).loss_PG.tolist() == free


def test_rectified_weights_equal_the_published_table() -> None:
    """1/c of the first 10 of 20 steps, as the authors' release of Flash-GRPO lists them.

    Their schedule is Wan's (shift 3 over 0.999 ... 0), their noise scale is sigma = t * t_1.
    """
    table = [7.4770, 7.0414, 6.6112, 6.1867, 5.7682, 5.3559, 4.9502, 4.5513, 4.1596, 3.7754]
    uniform = [0.999 * (1 - i / 20) for i in range(21)]
    sigmas = [3 * u / (1 + 2 * u) for u in uniform]
    found = []
    for i in range(10):
        t = sigmas[i]
        eta = t * sigmas[1] * math.sqrt((1 - t) / t)
        found.append(1 / kernel_sensitivity(t, sigmas[i + 1], t_1=sigmas[1], eta=eta))
    assert found == pytest.approx(table, rel=1e-4)
    weights = rectified_weights([1 / value for value in found])
    assert sum(weights) / 10 == pytest.approx(1)
    assert weights[0] / weights[9] == pytest.approx(table[0] / table[9], rel=1e-4)


def kernel_sensitivity(t: float, t_next: float, **kernel: float) -> float:
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    step: Any = sde_step(zero, one, t, t_next, noise=zero, **kernel)
    return sensitivity(step.mean, step.std)


def test_rectified_gradients_have_one_size_at_every_timestep() -> None:
    """By autograd through the kernel, for one and the same draw at every step of the plan."""
    x, v, noise = (normal(1, 6, 4, seed=seed).float() for seed in (1, 2, 3))
    pairs = [(SIGMAS[step.start], SIGMAS[step.end]) for step in PLAN.steps]
    weights = rectified_weights([kernel_sensitivity(*pair, t_1=SIGMAS[1], eta=0.7) for pair in pairs])
    plain, rectified = [], []
    for (t, t_next), weight in zip(pairs, weights, strict=True):
        velocity = v.clone().requires_grad_(True)
        drawn = sde_step(x, v, t, t_next, t_1=SIGMAS[1], eta=0.7, noise=noise)
        scored = sde_step(x, velocity, t, t_next, t_1=SIGMAS[1], eta=0.7, x_next=drawn.x_next)
        (gradient,) = torch.autograd.grad(scored.log_prob.sum(), velocity)
        plain.append(float(gradient.norm()))
        rectified.append(float(gradient.norm()) * weight)
    assert max(plain) / min(plain) > 2
    assert max(rectified) / min(rectified) == pytest.approx(1, abs=1e-4)


def test_only_ppo_clip_does_without_old_means() -> None:
    assert [needs_old_means(surrogate) for surrogate in SURROGATES] == [False, True, True]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"divergence_limit": 1e-5},
            "/training/divergence_limit: divergence_limit goes with surrogate 'flow_dppo', not 'ppo_clip' (got 1e-05)",
        ),
        (
            {"surrogate": "grpo_guard", "timestep_rescale": "flash"},
            "/training/timestep_rescale: timestep_rescale 'flash' goes with 'ppo_clip' or 'flow_dppo'",
        ),
        (
            {"surrogate": "dppo"},
            "/training/surrogate: Input should be 'ppo_clip', 'grpo_guard' or 'flow_dppo' (got 'dppo')",
        ),
    ],
)
def test_the_spec_refuses_what_does_not_go_together(training: dict[str, Any], message: str) -> None:
    document = {
        "base_model": "tiny-flux-shapes",
        "prompts": {"inline": ["a red circle"]},
        "reward": {"components": [{"type": "shapes"}]},
        "training": training,
    }
    with pytest.raises(ConfigError) as caught:
        parse_spec(document)
    assert message in str(caught.value)
