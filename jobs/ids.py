"""Ids: a prefix that says what it is, and a UUIDv7 in base32, so that ids sort by the time of their making."""

from __future__ import annotations

import re
import secrets
import time
from datetime import datetime

# Crockford's alphabet, lower case: no i, l, o, u, and in ASCII order, so that text order is number order.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26  # ceil(128 / 5)
_PATTERN = re.compile(rf"([a-z]+)_([0-7][{_ALPHABET}]{{{_LENGTH - 1}}})")


def new_id(prefix: str) -> str:
    """Returns a new id such as `job_01jdc…`."""
    return f"{prefix}_{_base32(_uuid7())}"


def first_id_of(prefix: str, moment: datetime) -> str:
    """Returns the id below which all those lie that were made before the moment, by their makers' clocks."""
    return f"{prefix}_{_base32(int(moment.timestamp() * 1000) << 80)}"


def is_id(value: str, prefix: str) -> bool:
    """Returns whether the text has the form of an id with that prefix; it need not exist."""
    match = _PATTERN.fullmatch(value)
    return match is not None and match.group(1) == prefix


def is_any_id(value: str) -> bool:
    """Returns whether the text has the form of an id, whatever its prefix."""
    return _PATTERN.fullmatch(value) is not None


def _uuid7() -> int:
    """Returns a UUIDv7 (RFC 9562, 5.7) whose rand_a holds the fraction of the millisecond (method 3 of 6.2)."""
    ms, rest_ns = divmod(time.time_ns(), 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    return ms << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)


def _base32(value: int) -> str:
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
