"""Advantages against numbers worked out by hand."""

import numpy as np
import pytest

from egrpo.advantage import combined_advantages, group_advantages


def test_a_group_is_normalised_by_itself() -> None:
    rewards = np.array([[[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]]])
    found = group_advantages(rewards, std_floor=0, clip=5)
    root = np.sqrt(1.5)
    np.testing.assert_allclose(
        found.values_APG, [[[-root, 0, root], [-np.sqrt(0.5), -np.sqrt(0.5), np.sqrt(2)]]], rtol=1e-6
    )
    assert found.num_flat == 0


def test_active_steps_are_not_mixed() -> None:
    rewards = np.random.default_rng(0).random((3, 2, 8))
    whole = group_advantages(rewards, std_floor=0, clip=5)
    for a in range(3):
        alone = group_advantages(rewards[a : a + 1] * 100 + a, std_floor=0, clip=5)
        np.testing.assert_allclose(whole.values_APG[a], alone.values_APG[0], rtol=1e-5)


def test_equal_rewards_contribute_nothing_and_are_counted() -> None:
    rewards = np.array([[[0.3] * 4, [0.1, 0.2, 0.3, 0.4]], [[0.7] * 4, [0.0] * 4]])
    found = group_advantages(rewards, std_floor=0, clip=5)
    assert found.num_flat == 3
    assert found.is_flat_AP.tolist() == [[True, False], [True, True]]
    assert not found.values_APG[found.is_flat_AP].any()
    assert np.isfinite(found.values_APG).all()


def test_the_floor_keeps_small_differences_small() -> None:
    rewards = np.array([[[0.5, 0.501]]])
    assert abs(group_advantages(rewards, std_floor=0, clip=5).values_APG).max() == pytest.approx(1, abs=1e-4)
    assert abs(group_advantages(rewards, std_floor=0.05, clip=5).values_APG).max() == pytest.approx(0.01, abs=1e-4)


def test_the_clamp() -> None:
    rewards = np.zeros((1, 1, 101))
    rewards[0, 0, 0] = 1
    assert group_advantages(rewards, std_floor=0, clip=5).values_APG.max() == 5
    assert group_advantages(rewards, std_floor=0, clip=20).values_APG.max() == pytest.approx(10)


def test_several_rewards_are_normalised_before_they_are_summed() -> None:
    rng = np.random.default_rng(1)
    small, large = rng.random((2, 2, 6)) * 1e-3, rng.random((2, 2, 6)) * 1e3
    found = combined_advantages([small, large], [1, 1], std_floor=0, clip=5).values_APG
    parts = sum(group_advantages(r, std_floor=0, clip=5).values_APG for r in (small, large))
    np.testing.assert_allclose(found, parts / parts.std(), rtol=1e-5)
    assert found.std() == pytest.approx(1)


def test_a_flat_reward_leaves_the_other_one_alone() -> None:
    rewards, flat = np.array([[[0.0, 1.0]]]), np.ones((1, 1, 2))
    assert combined_advantages([rewards, flat], [1, 1], std_floor=0, clip=5).num_flat == 0
    both = combined_advantages([flat, flat], [1, 2], std_floor=0, clip=5)
    assert both.num_flat == 1
    assert not both.values_APG.any()
