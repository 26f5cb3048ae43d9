"""Rewards that need no weights, and how several are scored together: groups are whole whatever the batches."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from egrpo_runs import Redness
from PIL import Image
from torch import Tensor

from egrpo import catalogue, config
from egrpo.errors import RewardError
from egrpo.models.adapter import ModelAdapter
from egrpo.rewards import LOADERS, FloatArray, GroupReward, Reward, RewardBatch, load_reward
from egrpo.rewards.diversity import DiversityReward
from egrpo.rewards.jpeg import JpegReward
from egrpo.rollout import Sampler
from egrpo.scoring import NO_GROUP, Scores, WeightedReward, score_latents


def test_catalogue_spec_and_loaders_name_the_same_rewards() -> None:
    members = get_args(get_args(config.RewardComponent)[0])
    types = [type_ for member in members for type_ in get_args(member.model_fields["type"].annotation)]
    assert sorted(types) == sorted(catalogue.REWARDS) == sorted(LOADERS)
    for type_ in types:
        component = config.parse(config.RewardSpec, {"components": [{"type": type_}]}).components[0]
        reward = load_reward(component)
        assert reward.name == type_
        assert reward.range == catalogue.REWARDS[type_].range
        assert isinstance(reward, GroupReward) != isinstance(reward, Reward)


def test_the_size_of_a_jpeg() -> None:
    noise = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    images = torch.cat([torch.full_like(noise, 0.5), noise])
    found = JpegReward(compressible=True)(images, ["", ""])
    file = io.BytesIO()
    Image.fromarray((noise[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(file, "JPEG", quality=95)
    bits = 8 * len(file.getvalue()) / (40 * 48)
    assert found.metrics["bits_per_pixel"][1] == pytest.approx(bits)
    assert found.scores[1] == pytest.approx(2 / (2 + bits))
    assert 0 < found.scores[1] < found.scores[0] < 1
    np.testing.assert_allclose(JpegReward(compressible=False)(images, ["", ""]).scores, 1 - found.scores)
    coarse = JpegReward(compressible=True, quality=10)(images, ["", ""])
    assert coarse.scores[1] > found.scores[1]
    assert found.passed.all()


def test_diversity_by_hand() -> None:
    black, white, grey = (torch.full((3, 8, 8), value) for value in (0.0, 1.0, 0.25))
    groups = [0, 1, 0, 1, 0, 2]
    images = torch.stack([black, grey, white, grey, grey, white])
    scores = DiversityReward().score_groups(images, [""] * 6, groups).scores
    assert scores.tolist() == pytest.approx([(1 + 0.25) / 2, 0, (1 + 0.75) / 2, 0, (0.25 + 0.75) / 2, 0])


def test_diversity_does_not_see_noise_but_layout() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy = 0.5 + 0.2 * torch.randn(2, 3, 128, 128, generator=generator)
    left = torch.zeros(3, 128, 128)
    left[0, :, :64] = 1  # a third of the channels differ over all cells when it is mirrored
    mirrored = torch.stack([left, left.flip(-1)])
    reward = DiversityReward(grid=8)
    assert reward.score_groups(noisy, ["", ""], [0, 0]).scores.max() == pytest.approx(0.2 / 16 * math.sqrt(2), rel=0.2)
    assert reward.score_groups(mirrored, ["", ""], [0, 0]).scores.tolist() == pytest.approx([math.sqrt(1 / 3)] * 2)


class Spread:
    """A group-wise reward: how far an image's mean is above the group's mean; notes what it was called with."""

    name = "spread"
    range = (-1.0, 1.0)

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def score_groups(self, images_BCHW: Tensor, prompts: Sequence[str], group_B: Sequence[int]) -> RewardBatch:
        """Scores whole groups."""
        self.calls.append(list(group_B))
        means, groups = images_BCHW.mean(dim=(1, 2, 3)).double().numpy(), np.asarray(group_B)
        scores = np.array([mean - means[groups == group].mean() for mean, group in zip(means, groups, strict=True)])
        return RewardBatch(scores, np.ones(len(scores), dtype=bool), {"mean": means})


class Pixels:
    """A model whose latents are its pictures, decoded a few at a time."""

    height = width = 4

    def __init__(self, decode_batch_size: int) -> None:
        self.decode_batch_size = decode_batch_size

    def decode(self, latents: Tensor) -> Tensor:
        """Returns the latents as images."""
        return latents.reshape(-1, 3, 4, 4)


def scored(rewards: Any, images: Tensor, groups: list[int], batch: int) -> Scores:
    model, sampler = cast(ModelAdapter, Pixels(batch)), cast(Sampler, Sampler(cast(Any, None), 0, 1))
    return score_latents(model, sampler, rewards, images.flatten(1), [f"prompt {g}" for g in groups], groups)[0]


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 16])
def test_a_group_is_whole_whatever_the_batches(batch: int) -> None:
    images = torch.rand(11, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    groups = [NO_GROUP, NO_GROUP, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    spread = Spread()
    found = scored([WeightedReward(spread, 1.0), WeightedReward(Redness(), 3.0)], images, groups, batch)
    assert sorted(group for call in spread.calls for group in call) == groups[2:]
    assert all(call.count(group) == 3 for call in spread.calls for group in call)
    means = images.mean(dim=(1, 2, 3)).double().numpy()
    expected = means[2:] - means[2:].reshape(3, 3).mean(axis=1).repeat(3)
    red = (0.5 + (images[:, 0] - images[:, 2]).mean(dim=(1, 2)) / 2).double().numpy()
    np.testing.assert_allclose(found.by_reward["spread"][2:], expected, atol=1e-7)
    assert np.isnan(found.by_reward["spread"][:2]).all()
    np.testing.assert_allclose(found.reward_R, [*red[:2], *((expected + 3 * red[2:]) / 4)], atol=1e-7)
    np.testing.assert_allclose(found.metrics["spread_mean"][2:], means[2:], atol=1e-7)
    assert set(found.of_row(5)) == {"spread", "redness", "spread_mean", "redness_green"}


def test_groups_that_are_not_contiguous_are_whole_too() -> None:
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    spread = Spread()
    mixed = scored([WeightedReward(spread, 1.0)], images, [0, 1, 0, 1, 0, 1], 2).by_reward["spread"]
    order = [0, 2, 4, 1, 3, 5]
    apart = scored([WeightedReward(spread, 1.0)], images[order], [0, 0, 0, 1, 1, 1], 6).by_reward["spread"]
    np.testing.assert_allclose(mixed[order], apart, atol=1e-12)


def test_held_out_rewards_are_measured_only() -> None:
    images = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    rewards = [WeightedReward(Redness(), 2.0), WeightedReward(Spread(), 0.0)]
    found = scored(rewards, images, [0, 0, 1, 1], 4)
    assert list(found.by_reward) == ["redness", "held_out_spread"]
    assert len(found.optimised) == 1
    np.testing.assert_allclose(found.reward_R, found.by_reward["redness"], rtol=1e-15)


def test_a_group_reward_is_held_to_its_protocol() -> None:
    class Short(Spread):
        def score_groups(self, images_BCHW: Tensor, prompts: Sequence[str], group_B: Sequence[int]) -> RewardBatch:
            scores: FloatArray = np.zeros(len(prompts) - 1)
            return RewardBatch(scores, np.ones(len(prompts), dtype=bool))

    with pytest.raises(RewardError, match=r"reward 'spread' returned scores of shape \(1,\), expected \(2,\)"):
        scored([WeightedReward(Short(), 1.0)], torch.zeros(2, 3, 4, 4), [0, 0], 2)
