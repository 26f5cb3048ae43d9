"""The schedule and the merge plan against the reference numbers of the method, written out here."""

import math

import pytest

from egrpo.errors import ConfigError, DispersionError
from egrpo.schedule import (
    GroupPlan,
    active_indices,
    dispersion,
    entropy,
    merge_plan,
    network_evaluations,
    shifted_sigmas,
)

SIGMAS = shifted_sigmas(16, 3.0)
ETA = 0.7


def test_shifted_times_are_the_papers() -> None:
    expected = [
        1,
        0.9783,
        0.9545,
        0.9286,
        0.9,
        0.8684,
        0.8333,
        0.7941,
        0.75,
        0.7,
        0.6429,
        0.5769,
        0.5,
        0.4091,
        0.3,
        0.1667,
        0,
    ]
    assert pytest.approx(expected, abs=5e-5) == SIGMAS


def test_entropy_of_single_steps() -> None:
    expected = [
        2.893,
        2.989,
        2.137,
        1.763,
        1.542,
        1.392,
        1.281,
        1.193,
        1.120,
        1.056,
        0.997,
        0.937,
        0.872,
        0.795,
        0.692,
        0.528,
    ]
    assert [entropy(SIGMAS, i, i + 1, ETA) for i in range(16)] == pytest.approx(expected, abs=5e-4)


def test_entropy_is_the_exponential_of_a_gaussians_entropy() -> None:
    t, t_next = SIGMAS[4], SIGMAS[6]
    variance = ETA**2 * t / (1 - t) * (t - t_next)
    assert entropy(SIGMAS, 4, 6, ETA) == pytest.approx(math.exp(0.5 * math.log(2 * math.pi * math.e * variance)))


@pytest.mark.parametrize(
    ("threshold", "lengths"),
    [
        (0.0, [1, 1, 1, 1, 1, 1, 1, 1]),
        (1.8, [1, 1, 1, 2, 2, 2, 2, 3]),
        (2.0, [1, 1, 1, 2, 2, 2, 3, 3]),
        (2.2, [1, 1, 2, 2, 2, 3, 3, 3]),
        (2.6, [1, 1, 2, 3, 3, 4, 4, 4]),
    ],
)
def test_adaptive_merge_lengths(threshold: float, lengths: list[int]) -> None:
    plan = merge_plan(SIGMAS, eta=ETA, active=range(8), entropy_threshold=threshold)
    assert [step.length for step in plan.steps] == lengths


def test_the_default_plan() -> None:
    plan = merge_plan(SIGMAS, eta=ETA, active=range(8), entropy_threshold=2.2)
    assert [step.entropy for step in plan.steps] == pytest.approx(
        [2.893, 2.989, 3.096, 2.558, 2.241, 2.558, 2.362, 2.210], abs=5e-4
    )
    assert [step.dispersion for step in plan.steps] == pytest.approx(
        [1.036, 1.045, 1.067, 1.039, 1.027, 1.057, 1.044, 1.031], abs=5e-4
    )
    groups = [GroupPlan((step,), (step,)) for step in plan.steps]
    assert network_evaluations(plan, groups, 12) == 1012


@pytest.mark.parametrize(
    ("start", "by_length"),
    [
        (1, {1: 1.04, 2: 1.19, 4: 1.82, 6: 2.91}),
        (2, {1: 1.01, 2: 1.07, 4: 1.33, 6: 1.88}),
        (4, {1: 1.01, 2: 1.03, 4: 1.15, 6: 1.45}),
        (6, {1: 1.00, 2: 1.02, 4: 1.09, 6: 1.29}),
    ],
)
def test_dispersion_of_fixed_lengths(start: int, by_length: dict[int, float]) -> None:
    # The table is rounded to two decimals; i = 4, l = 1 is 1.0057.
    found = {length: dispersion(SIGMAS, start, start + length, ETA) for length in by_length}
    assert found == pytest.approx(by_length, abs=6e-3)


def test_dispersion_agrees_with_a_simulation() -> None:
    """Draws the step for N(0, 1) data with the exact velocity, and measures."""
    import torch

    t, t_next = SIGMAS[2], SIGMAS[6]
    generator = torch.Generator().manual_seed(0)
    data, noise, step = (torch.randn(2_000_000, dtype=torch.float64, generator=generator) for _ in range(3))
    x = (1 - t) * data + t * noise
    v = (2 * t - 1) / ((1 - t) ** 2 + t**2) * x
    rate, delta = ETA**2 * t / (1 - t), t - t_next
    mean = x * (1 - rate / (2 * t) * delta) - v * (1 + rate * (1 - t) / (2 * t)) * delta
    x_next = mean + math.sqrt(rate * delta) * step
    true_std = math.sqrt((1 - t_next) ** 2 + t_next**2)
    assert float(x_next.std()) / true_std == pytest.approx(dispersion(SIGMAS, 2, 6, ETA), abs=2e-3)


def test_highest_dispersions_of_other_plans() -> None:
    adaptive = merge_plan(SIGMAS, eta=ETA, active=range(8), entropy_threshold=2.6)
    assert max(step.dispersion for step in adaptive.steps) == pytest.approx(1.12, abs=5e-3)
    for length, highest in ((4, 1.82), (6, 2.91)):
        plan = merge_plan(SIGMAS, eta=ETA, active=range(8), merging="fixed", fixed_length=length)
        assert max(step.dispersion for step in plan.steps) == pytest.approx(highest, abs=5e-3)


def test_a_merge_never_passes_the_end() -> None:
    adaptive = merge_plan(SIGMAS, eta=ETA, active=range(16), entropy_threshold=50)
    assert {step.end for step in adaptive.steps} == {16}
    fixed = merge_plan(SIGMAS, eta=ETA, active=[13, 15], merging="fixed", fixed_length=4)
    assert [step.length for step in fixed.steps] == [3, 1]


def test_no_merging() -> None:
    plan = merge_plan(SIGMAS, eta=ETA, active=range(8), merging="none")
    assert {step.length for step in plan.steps} == {1}


def test_dispersion_limit_names_the_steps() -> None:
    with pytest.raises(DispersionError, match=r"1\.5 is exceeded.*0->4 \(1\.68\), 1->5 \(1\.82\);"):
        merge_plan(SIGMAS, eta=ETA, active=range(8), merging="fixed", fixed_length=4, dispersion_limit=1.5)


@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 1.0, 0.0], [1.0, 0.5], [1.5, 0.5, 0.0]])
def test_a_broken_schedule_is_refused(sigmas: list[float]) -> None:
    with pytest.raises(ConfigError, match="fall from at most 1 to 0"):
        merge_plan(sigmas, eta=ETA, active=[0])


@pytest.mark.parametrize("active", [[], [-1], [16]])
def test_active_steps_must_be_on_the_schedule(active: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"0\.\.15"):
        merge_plan(SIGMAS, eta=ETA, active=active)


def test_active_steps_as_a_fraction() -> None:
    assert active_indices(0.5, 16) == list(range(8))
    assert active_indices(1.0, 4) == [0, 1, 2, 3]
    assert active_indices(0.01, 16) == [0]
    assert active_indices([2, 5], 16) == [2, 5]
