"""The shapes reward against drawn truth: what is shown scores at least 0.99, what is not at most 0.5."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from egrpo.rewards.shapes import ShapesReward
from egrpo.tiny.captions import COLOURS, RELATIONS, SHAPES, Caption, Thing, all_captions
from egrpo.tiny.world import Scene, place, render

NUM = 240
CORRUPTIONS = {
    "clean": lambda images, rng: images,
    "blurred": lambda images, rng: ndimage.gaussian_filter(images, (0, 0.8, 0.8, 0)),
    "noisy": lambda images, rng: np.clip(images + rng.normal(0, 0.04, images.shape), 0, 1),
    "shifted": lambda images, rng: np.stack(
        [ndimage.shift(image, (1.5, -1.0, 0), order=1, mode="nearest") for image in images]
    ),
    "blurred and noisy": lambda images, rng: np.clip(
        ndimage.gaussian_filter(images, (0, 0.6, 0.6, 0)) + rng.normal(0, 0.03, images.shape), 0, 1
    ),
}


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(11)
    pool = all_captions(1) * 20 + all_captions(2)
    captions = [pool[index] for index in rng.choice(len(pool), NUM, replace=False)]
    images = np.stack([render(place(caption, rng)) for caption in captions]) / 255.0
    return captions, images


def score(images, captions):
    return ShapesReward()(torch.from_numpy(images).float().permute(0, 3, 1, 2), [str(caption) for caption in captions])


def one_attribute_off(caption, rng):
    """Returns the caption with one colour, shape or relation changed."""
    kinds = ["colour", "shape"] if caption.second is None else ["colour", "shape", "relation"]
    kind = kinds[rng.integers(len(kinds))]

    def other(values, value):
        return values[(values.index(value) + rng.integers(1, len(values))) % len(values)]

    if kind == "relation":
        return Caption(caption.first, other(RELATIONS, caption.relation), caption.second)
    first = caption.first
    changed = (
        Thing(other(COLOURS, first.colour), first.shape)
        if kind == "colour"
        else Thing(first.colour, other(SHAPES, first.shape))
    )
    return Caption(changed, caption.relation, caption.second)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_truth_scores_high(drawn, corruption):
    captions, images = drawn
    result = score(CORRUPTIONS[corruption](images, np.random.default_rng(0)), captions)
    assert result.passed.all()
    assert result.scores.mean() >= 0.995
    assert (result.scores >= 0.99).mean() >= 0.98
    assert result.scores.min() >= 0.75


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_one_wrong_attribute_scores_at_most_half(drawn, corruption):
    captions, images = drawn
    rng = np.random.default_rng(1)
    result = score(CORRUPTIONS[corruption](images, rng), [one_attribute_off(caption, rng) for caption in captions])
    assert not result.passed.any()
    assert result.scores.max() <= 0.51


def test_pictures_of_other_captions_score_low(drawn):
    captions, images = drawn
    result = score(images, captions[1:] + captions[:1])
    assert result.scores.max() <= 0.5
    assert result.scores.mean() < 0.2


def test_extra_and_missing_things_count():
    rng = np.random.default_rng(2)
    caption = Caption(Thing("red", "circle"), "left of", Thing("blue", "square"))
    scene = place(caption, rng)
    extra = Scene(
        (*scene.shapes, "star"), (*scene.centres, (32.0, 10.0)), (*scene.radii, 7.0), (*scene.colours, (0.1, 0.6, 0.2))
    )
    missing = Scene(scene.shapes[:1], scene.centres[:1], scene.radii[:1], scene.colours[:1])
    empty = Scene((), (), (), ())
    images = np.stack([render(each) for each in (scene, extra, missing, empty)]) / 255.0
    result = score(images, [caption] * 4)
    assert result.passed.tolist() == [True, False, False, False]
    assert result.scores[0] == pytest.approx(1.0)
    assert result.scores[0] > result.scores[1] >= 0.25
    assert result.scores[1] > result.scores[2] > result.scores[3]


def test_score_rises_smoothly_as_a_thing_moves_into_place():
    caption = Caption(Thing("red", "circle"), "left of", Thing("blue", "square"))
    colours = ((0.9, 0.1, 0.12), (0.12, 0.25, 0.88))
    images = np.stack(
        [
            render(Scene(("circle", "square"), ((32 - d, 20.0), (32 + d, 44.0)), (9.0, 9.0), colours))
            for d in range(8, 20, 2)
        ]
    )
    scores = score(images / 255.0, [caption] * len(images)).scores
    assert (np.diff(scores) >= 0).all()
    assert scores[0] == pytest.approx(0.5, abs=0.01)
    assert 0.55 < np.median(scores) < 0.99
    assert scores[-1] == pytest.approx(1.0, abs=0.01)


def test_score_of_an_image_does_not_depend_on_its_batch(drawn):
    captions, images = drawn
    together = score(images[:20], captions[:20])
    alone = [score(images[n : n + 1], captions[n : n + 1]).scores[0] for n in range(20)]
    assert together.scores.tolist() == alone


def test_other_languages_are_refused_by_name():
    with pytest.raises(ValueError, match=r"a photo of a cat.*colours red"):
        score(np.zeros((1, 64, 64, 3)), ["a photo of a cat"])
