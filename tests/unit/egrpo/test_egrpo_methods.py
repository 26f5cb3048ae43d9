"""What each method makes stochastic, shares and trains; and the coefficients-preserving kernel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from egrpo.config import parse_spec
from egrpo.errors import ConfigError
from egrpo.kernels import step_gaussian
from egrpo.methods import METHODS, MethodSpec
from egrpo.schedule import (
    GroupPlan,
    MergePlan,
    dispersion,
    entropy,
    merge_plan,
    network_evaluations,
    shifted_sigmas,
    trained_latents,
)

SIGMAS = shifted_sigmas(16, 3.0)
DOCUMENT: dict[str, Any] = {
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle", "a blue square"]},
    "reward": {"components": [{"type": "shapes"}]},
}


def method(**fields: Any) -> MethodSpec:
    return parse_spec({**DOCUMENT, "method": fields}).method


def drawn(spec: MethodSpec, step: int = 0, seed: int = 0) -> tuple[MergePlan, tuple[GroupPlan, ...]]:
    plan = spec.plan(SIGMAS)
    return plan, spec.groups(plan, np.random.default_rng(seed), step)


def starts(group: GroupPlan) -> tuple[list[int], list[int]]:
    return [step.start for step in group.steps], [step.start for step in group.trained]


def test_egrpo_is_one_merged_step_a_group() -> None:
    spec = method(type="egrpo")
    plan, groups = drawn(spec)
    assert [(len(group.steps), group.steps == group.trained, group.strides) for group in groups] == [
        (1, True, (1,))
    ] * 8
    assert [group.steps[0].length for group in groups] == [1, 1, 2, 2, 2, 3, 3, 3]
    assert (spec.shares_noise, spec.draws_anchor, spec.images_per_prompt) == (True, True, 12 * 8)
    assert spec.network_evaluations(plan) == (1012, 1012)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "egrpo", "active_steps_per_update": 3},
        {"type": "g2rpo", "granularities": [1, 2], "active_steps_per_update": 2},
        {"type": "dance_grpo"},
        {"type": "dance_grpo", "trained_fraction": 1.0},
        {"type": "flow_grpo"},
        {"type": "flow_grpo_fast"},
        {"type": "mix_grpo", "updates_per_window": 1},
    ],
)
def test_evaluations_are_between_what_any_update_takes(fields: dict[str, Any]) -> None:
    spec = method(**fields)
    plan = spec.plan(SIGMAS)
    shares = {"shares_noise": spec.shares_noise, "draws_anchor": spec.draws_anchor}
    counts = [
        network_evaluations(plan, spec.groups(plan, np.random.default_rng(step), step), spec.group_size, **shares)
        for step in range(400)
    ]
    assert spec.network_evaluations(plan) == (min(counts), max(counts))
    latents = [
        trained_latents(
            spec.groups(plan, np.random.default_rng(step), step), spec.group_size, shares_noise=spec.shares_noise
        )
        for step in range(400)
    ]
    assert spec.trained_latents(plan) == (min(latents), max(latents))


def test_egrpo_draws_its_active_steps_when_asked_to() -> None:
    spec = method(active_steps_per_update=3)
    draws = [tuple(group.steps[0].start for group in drawn(spec, seed=seed)[1]) for seed in range(8)]
    assert all(len(draw) == 3 and sorted(draw) == list(draw) for draw in draws)
    assert len(set(draws)) > 3
    assert spec.images_per_prompt == 12 * 3


def test_g2rpo_merges_nothing_and_has_tails_of_several_granularities() -> None:
    spec = method(type="g2rpo", granularities=[1, 2, 4])
    _, groups = drawn(spec)
    assert [(group.steps[0].length, group.strides) for group in groups] == [(1, (1, 2, 4))] * 8
    assert spec.images_per_prompt == 12 * 8 * 3


def test_dance_grpo_trains_a_random_part_of_a_stochastic_trajectory() -> None:
    spec = method(type="dance_grpo")
    (group,) = drawn(spec)[1]
    every, trained = starts(group)
    assert every == list(range(16))
    assert len(trained) == round(0.6 * 16)
    assert trained == sorted(trained)
    assert trained != starts(drawn(spec, seed=1)[1][0])[1]
    assert (spec.shares_noise, spec.draws_anchor, spec.images_per_prompt) == (True, False, 12)


def test_flow_grpo_trains_everything_and_shares_no_noise() -> None:
    spec = method(type="flow_grpo")
    (group,) = drawn(spec)[1]
    assert starts(group) == (list(range(16)), list(range(16)))
    assert (spec.shares_noise, spec.draws_anchor) == (False, False)


def test_flow_grpo_fast_draws_a_window_in_the_first_half() -> None:
    spec = method(type="flow_grpo_fast", window_size=3)
    windows = {tuple(starts(drawn(spec, seed=seed)[1][0])[0]) for seed in range(200)}
    assert windows == {(i, i + 1, i + 2) for i in range(6)}


def test_mix_grpo_slides_its_window_from_noise_to_image_and_starts_again() -> None:
    spec = method(type="mix_grpo", window_size=4, window_stride=6, updates_per_window=5)
    windows = [starts(drawn(spec, step=step)[1][0]) for step in (0, 4, 5, 14, 15)]
    first, second, third = ([i, i + 1, i + 2, i + 3] for i in (0, 6, 12))
    assert [every for every, _ in windows] == [first, first, second, third, first]
    assert all(every == trained for every, trained in windows)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "dance"}, "/method/type: Input should be 'egrpo', 'g2rpo'"),
        ({"type": "mix_grpo", "merging": "fixed"}, "/method/merging: Extra inputs are not permitted"),
        ({"type": "mix_grpo", "window_size": 17}, "/method/window_size: the schedule has 16 steps that can be"),
        ({"type": "g2rpo", "granularities": [2, 2]}, "/method/granularities: granularities must be different numbers"),
        ({"kernel": "cps", "eta": 1.5}, "/method/eta: eta must be at most 1 with the kernel 'cps' (got 1.5)"),
        ({"type": "dance_grpo", "eta": -1}, "/method/eta: Input should be greater than 0 (got -1); allowed: > 0"),
        (
            {"kernel": "cps", "active_steps": [15]},
            "/method/active_steps: active_steps must be different indices in rising",
        ),
    ],
)
def test_a_refusal_names_field_value_and_what_is_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        method(**fields)
    assert message in str(caught.value)


def test_every_method_is_named_by_its_type() -> None:
    assert {name: kind.model_fields["type"].annotation.__args__ for name, kind in METHODS.items()} == {
        name: (name,) for name in METHODS
    }


@pytest.mark.parametrize("i", [0, 3, 9])
@pytest.mark.parametrize("length", [1, 2, 6])
def test_cps_mixes_predicted_data_and_noise_anew(i: int, length: int) -> None:
    """In float64 by hand: x = (1 - t) x0 + t x1 is taken apart by v = x1 - x0 and put together at t_next."""
    eta, rng = 0.5, np.random.default_rng(i)
    t, t_next = SIGMAS[i], SIGMAS[i + length]
    data, noise = rng.standard_normal((2, 50))
    x, v = (1 - t) * data + t * noise, noise - data
    step = step_gaussian("cps", t, t_next, t_1=SIGMAS[1], eta=eta)
    assert step.std == pytest.approx(t_next * math.sin(eta * math.pi / 2))
    expected = data * (1 - t_next) + noise * math.sqrt(t_next**2 - step.std**2)
    np.testing.assert_allclose(x * step.x_factor - v * step.v_factor, expected, atol=1e-12)


def test_cps_stays_near_the_marginal_for_any_length_and_flow_sde_does_not() -> None:
    longest = {
        kernel: max(dispersion(SIGMAS, 1, 1 + n, 0.7, kernel) for n in range(1, 9)) for kernel in ("flow_sde", "cps")
    }
    assert longest["flow_sde"] > 3
    assert longest["cps"] < 1.01


def test_entropy_under_cps_falls_with_the_length_so_nothing_is_merged() -> None:
    assert [entropy(SIGMAS, 4, 4 + n, 0.7, "cps") for n in (1, 2, 3)] == pytest.approx(
        [math.sqrt(2 * math.pi * math.e) * SIGMAS[4 + n] * math.sin(0.35 * math.pi) for n in (1, 2, 3)]
    )
    plan = merge_plan(SIGMAS, eta=0.7, active=range(15), entropy_threshold=3.3, kernel="cps")
    assert {step.length for step in plan.steps} == {1}
    assert all(step.end < 16 for step in plan.steps)


def test_under_cps_the_step_to_zero_is_left_out() -> None:
    spec = method(kernel="cps", active_steps=1.0)
    assert [group.steps[0].start for group in drawn(spec)[1]] == list(range(15))
    assert spec.images_per_prompt == 12 * 15
    assert [step.start for step in method(type="dance_grpo", kernel="cps").plan(SIGMAS).steps] == list(range(15))


def test_images_per_update_and_prompts_per_update_are_one_number() -> None:
    assert parse_spec({**DOCUMENT, "training": {"prompts_per_update": 3}}).training.images_per_update == 3 * 96
    assert parse_spec({**DOCUMENT, "training": {"images_per_update": 192}}).training.prompts_per_update == 2
    spec = parse_spec({**DOCUMENT, "method": {"type": "mix_grpo"}, "training": {"images_per_update": 48}})
    assert spec.training.prompts_per_update == 4
    assert parse_spec(spec.model_dump(mode="json")) == spec
    for images, prompts, allowed in ((100, None, "a multiple of 96 up to"), (192, 3, "288, or leave out prompts_per")):
        training = {"images_per_update": images, **({} if prompts is None else {"prompts_per_update": prompts})}
        with pytest.raises(ConfigError, match=f"/training/images_per_update: the method draws 96 .*allowed: {allowed}"):
            parse_spec({**DOCUMENT, "training": training})
