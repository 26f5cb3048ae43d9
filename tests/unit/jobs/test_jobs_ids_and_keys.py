"""Ids, API keys and cursors: forms that the outside relies on."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import api_keys, ids, pages
from jobs.errors import InvalidRequest


def test_an_id_is_a_prefixed_uuid7(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_790_000_000_123_456_789)
    made = ids.new_id("job")
    assert re.fullmatch(r"job_[0-7][0-9a-hjkmnp-tv-z]{25}", made)
    value = 0
    for character in made.removeprefix("job_"):
        value = value * 32 + "0123456789abcdefghjkmnpqrstvwxyz".index(character)
    assert value >> 80 == 1_790_000_000_123, "48 bits of Unix milliseconds (RFC 9562, 5.7)"
    assert value >> 76 & 0xF == 7
    assert value >> 62 & 0b11 == 0b10


def test_ids_sort_by_age() -> None:
    made = []
    for _ in range(50):
        made.append(ids.new_id("job"))
        time.sleep(0.000_01)
    assert made == sorted(made)
    assert len(set(made)) == 50


def test_ids_are_found_by_the_time_of_their_making() -> None:
    before, id_ = datetime.now(UTC), ids.new_id("job")
    after = datetime.now(UTC) + timedelta(milliseconds=1)
    assert ids.first_id_of("job", before) <= id_ < ids.first_id_of("job", after)
    assert ids.is_id(ids.first_id_of("job", before), "job")


@pytest.mark.parametrize("text", ["", "job_", "job_01", "JOB_" + "0" * 26, "job_" + "0" * 25 + "u", "job_8" + "0" * 25])
def test_what_is_no_id(text: str) -> None:
    assert not ids.is_id(text, "job")


def test_is_id_tells_prefixes_apart() -> None:
    assert ids.is_id(ids.new_id("job"), "job")
    assert not ids.is_id(ids.new_id("ckpt"), "job")


def test_keys_are_long_random_and_checked() -> None:
    keys = {api_keys.new_key() for _ in range(20)}
    assert len(keys) == 20
    for key in keys:
        assert re.fullmatch(r"ega_[a-z2-7]{52}[a-z2-7]{7}", key)
        assert api_keys.is_well_formed(key)


@given(st.integers(0, 62), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_mistyped_key_is_noticed(position: int, character: str) -> None:
    key = api_keys.new_key()
    typed = key[:position] + character + key[position + 1 :]
    assert api_keys.is_well_formed(typed) == (typed == key)


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=1))
def test_cursors_come_back(key: str) -> None:
    assert pages.decode_cursor(pages.encode_cursor(key)) == key


@pytest.mark.parametrize("cursor", ["", "!", "a", "AA==", "_-_-_-", "gA", "\u00e9", "\U0001f600aa"])
def test_what_is_no_cursor(cursor: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        pages.decode_cursor(cursor)
    assert caught.value.errors[0].parameter == "cursor"


def test_a_page_knows_whether_there_is_more() -> None:
    whole = pages.cut(["a", "b"], 2, str)
    assert (whole.items, whole.next_cursor) == (["a", "b"], None)
    part = pages.cut(["a", "b", "c"], 2, str)
    assert part.items == ["a", "b"]
    assert pages.decode_cursor(str(part.next_cursor)) == "b"
