"""The shapes world: its language reads back, its scenes keep their relation, its tokenizers know every word."""

import numpy as np
import pytest

from egrpo.tiny.captions import HELD_OUT_PAIRS, Caption, Thing, all_captions, is_held_out, parse_caption
from egrpo.tiny.world import garble, place, sample_caption


def test_every_caption_reads_back():
    captions = all_captions(1) + all_captions(2)
    assert len(captions) == 48 + 6720
    assert all(parse_caption(str(caption)) == caption for caption in captions)


@pytest.mark.parametrize("text", ["  A red  circle. ", "a Red Circle"])
def test_case_space_and_full_stop_do_not_matter(text):
    assert parse_caption(text) == Caption(Thing("red", "circle"))


@pytest.mark.parametrize(
    "text", ["", "red circle", "a pink circle", "a red circle near a blue square", "a red circle above"]
)
def test_what_is_no_caption_is_refused(text):
    with pytest.raises(ValueError, match="not a caption of the shapes world"):
        parse_caption(text)


def test_pretraining_never_sees_what_is_held_out():
    rng = np.random.default_rng(0)
    drawn = [sample_caption(rng) for _ in range(2000)]
    assert not any(is_held_out(caption) for caption in drawn)
    assert not any((thing.colour, thing.shape) in HELD_OUT_PAIRS for caption in drawn for thing in caption.things)
    assert any(is_held_out(caption) for caption in all_captions(2))


def test_scenes_keep_the_relation_with_room_to_spare():
    rng = np.random.default_rng(1)
    for caption in all_captions(2)[::29]:
        (ax, ay), (bx, by) = place(caption, rng).centres
        along = {"left of": bx - ax, "right of": ax - bx, "above": by - ay, "below": ay - by}[str(caption.relation)]
        across = abs(by - ay) if caption.relation in ("left of", "right of") else abs(bx - ax)
        assert along - across >= 12


def test_careless_captions_name_a_random_relation_as_often_as_stated_and_never_show_what_is_held_out():
    rng = np.random.default_rng(0)
    captions = [sample_caption(rng) for _ in range(3000)]
    garbled = [garble(caption, rng, relation_noise=0.5) for caption in captions]
    pairs = [(a, b) for a, b in zip(captions, garbled, strict=True) if a.second is not None]
    assert len(pairs) / len(captions) == pytest.approx(0.85, abs=0.03)
    # One random word in four stays right, and one in twelve of the wrong ones would make a held-out caption.
    assert np.mean([a != b for a, b in pairs]) == pytest.approx(0.5 * 0.75 * 11 / 12, abs=0.03)
    assert all((a.first, a.second) == (b.first, b.second) for a, b in pairs)
    assert not any(is_held_out(caption) for caption in garbled)
    assert all(garble(caption, rng, relation_noise=0.0) == caption for caption in captions)


def test_tokenizers_know_every_word():
    from egrpo.tiny.tokenizers import MAX_TOKENS, make_clip_tokenizer, make_t5_tokenizer

    clip, t5 = make_clip_tokenizer(), make_t5_tokenizer()
    spellings = set()
    for caption in all_captions(2)[::37]:
        words = str(caption).split()
        assert len(t5(str(caption)).input_ids) == len(words) + 1
        assert len(clip(str(caption)).input_ids) == len(words) + 2 <= MAX_TOKENS
        spellings.update(tuple(clip(word, add_special_tokens=False).input_ids) for word in words)
    assert len(spellings) == 2 + 8 + 6 + 5
