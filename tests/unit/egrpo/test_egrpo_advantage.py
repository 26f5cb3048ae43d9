"""Advantages against numbers worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

from egrpo.advantage import Advantages, Moments, combined_advantages


def of_one(rewards_APG: Any, *, std_floor: float = 0, clip: float = 5) -> Advantages:
    """The advantages of one reward with one tail per member."""
    return combined_advantages([np.asarray(rewards_APG)[:, None]], [1], std_floor=std_floor, clip=clip)


def of_several(rewards: Any, weights: Any = (1, 1), **options: Any) -> Advantages:
    """The advantages of several rewards with one tail per member."""
    given = [np.asarray(reward, dtype=float)[:, None] for reward in rewards]
    return combined_advantages(given, weights, **{"std_floor": 0, "clip": 5, **options})


def test_a_group_is_normalised_by_itself() -> None:
    found = of_one([[[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]]])
    root = np.sqrt(1.5)
    np.testing.assert_allclose(
        found.values_APG, [[[-root, 0, root], [-np.sqrt(0.5), -np.sqrt(0.5), np.sqrt(2)]]], rtol=1e-6
    )
    assert found.num_flat == 0


def test_active_steps_are_not_mixed() -> None:
    rewards = np.random.default_rng(0).random((3, 2, 8))
    whole = of_one(rewards)
    for a in range(3):
        alone = of_one(rewards[a : a + 1] * 100 + a)
        np.testing.assert_allclose(whole.values_APG[a], alone.values_APG[0], rtol=1e-5)


def test_granularities_are_normalised_apart_and_averaged() -> None:
    """G2RPO: the tails of one granularity are a group of their own, whatever the scale of the other's scores."""
    fine, coarse = [1.0, 2.0, 3.0], [300.0, 100.0, 200.0]
    found = combined_advantages([np.array([[[fine], [coarse]]])], [1], std_floor=0, clip=5)
    root = math.sqrt(1.5)
    np.testing.assert_allclose(found.values_APG, [[[0, -root / 2, root / 2]]], atol=1e-7)
    half_flat = combined_advantages([np.array([[[fine], [[7.0] * 3]]])], [1], std_floor=0, clip=5)
    np.testing.assert_allclose(half_flat.values_APG, [[[-root / 2, 0, root / 2]]], atol=1e-7)
    assert (half_flat.num_flat, half_flat.num_flat_by_reward) == (0, (0,))


def test_equal_rewards_contribute_nothing_and_are_counted() -> None:
    found = of_one([[[0.3] * 4, [0.1, 0.2, 0.3, 0.4]], [[0.7] * 4, [0.0] * 4]])
    assert (found.num_flat, found.num_flat_by_reward) == (3, (3,))
    assert found.is_flat_AP.tolist() == [[True, False], [True, True]]
    assert not found.values_APG[found.is_flat_AP].any()
    assert np.isfinite(found.values_APG).all()


def test_the_floor_keeps_small_differences_small() -> None:
    rewards = [[[0.5, 0.501]]]
    assert abs(of_one(rewards).values_APG).max() == pytest.approx(1, abs=1e-4)
    assert abs(of_one(rewards, std_floor=0.05).values_APG).max() == pytest.approx(0.01, abs=1e-4)


def test_the_clamp() -> None:
    rewards = np.zeros((1, 1, 101))
    rewards[0, 0, 0] = 1
    assert of_one(rewards).values_APG.max() == 5
    assert of_one(rewards, clip=20).values_APG.max() == pytest.approx(10)


def test_gdpo_does_not_see_the_scale_of_a_reward() -> None:
    """Two groups of two: normalised scores are +-1, so the sums are +-2 and 0, and their std is the root of 2."""
    small, large = [[[0.0, 1e-3], [0.0, 1e-3]]], [[[0.0, 1e3], [1e3, 0.0]]]
    found = of_several([small, large], weights=[2, 1])
    # The sums are (-3, 3) and (-1, 1): their std is the root of 5.
    expected = np.array([[[-3, 3], [-1, 1]]]) / math.sqrt(5)
    np.testing.assert_allclose(found.values_APG, expected, rtol=1e-4)
    assert (found.num_flat, found.num_flat_by_reward) == (0, (0, 0))


def test_a_weighted_sum_does_see_the_scale() -> None:
    small, large = [[[0.0, 0.3, 0.1]]], [[[10.0, 0.0, 2.0]]]
    found = of_several([small, large], weights=[3, 1], combine="weighted_sum")
    mean = np.array([10.0, 0.9, 2.3]) / 4
    np.testing.assert_allclose(found.values_APG[0, 0], (mean - mean.mean()) / mean.std(), rtol=1e-6)
    floored = of_several([small, large], weights=[3, 1], combine="weighted_sum", std_floor=100)
    np.testing.assert_allclose(floored.values_APG[0, 0], (mean - mean.mean()) / 100, rtol=1e-6)


def test_a_flat_reward_leaves_the_other_one_alone() -> None:
    varying, flat = [[[0.0, 1.0]], [[1.0, 0.0]]], np.ones((2, 1, 2))
    for combine in ("gdpo", "weighted_sum"):
        found = of_several([varying, flat], combine=combine)
        np.testing.assert_allclose(found.values_APG, [[[-1, 1]], [[1, -1]]], rtol=1e-6)
        assert (found.num_flat, found.num_flat_by_reward) == (0, (0, 2))
        nothing = of_several([flat, flat], weights=[1, 2], combine=combine)
        assert (nothing.num_flat, nothing.num_flat_by_reward) == (2, (2, 2))
        assert not nothing.values_APG.any()


def test_flat_groups_do_not_shrink_the_batch_std() -> None:
    varying = [[[0.0, 1.0], [0.5, 0.5]]]
    found = of_several([varying, varying])
    np.testing.assert_allclose(found.values_APG, [[[-1, 1], [0, 0]]], rtol=1e-6)


def test_processes_that_add_their_moments_get_the_advantages_of_the_whole_batch() -> None:
    rng = np.random.default_rng(3)
    rewards = [rng.random((2, 1, 4, 5)), np.round(rng.random((2, 1, 4, 5)))]
    rewards[0][:, :, 1] = rewards[1][:, :, 1] = 0.5  # a process without one group that varies
    rewards[0][:, :, 0] = rewards[1][:, :, 0] = 0.5
    whole = combined_advantages(rewards, [1, 2], std_floor=0, clip=5)
    halves = [[reward[:, :, half] for reward in rewards] for half in (slice(0, 2), slice(2, 4))]
    seen: list[Moments] = []

    def note(own: Moments) -> Moments:
        seen.append(own)
        return own

    for half in halves:
        combined_advantages(half, [1, 2], std_floor=0, clip=5, gather=note)
    assert [moments.count for moments in seen] == [0, 20]
    both = Moments(*(sum(getattr(own, name) for own in seen) for name in ("count", "total", "squares")))
    parts = [combined_advantages(half, [1, 2], std_floor=0, clip=5, gather=lambda _: both) for half in halves]
    np.testing.assert_allclose(np.concatenate([p.values_APG for p in parts], axis=1), whole.values_APG, rtol=1e-12)


def test_moments() -> None:
    assert Moments.of(np.array([[1.0, 2.0], [3.0, 6.0]])).std == pytest.approx(math.sqrt(12.5 - 9))
    assert Moments.of(np.zeros((0, 3))).std == 0
