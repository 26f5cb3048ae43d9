"""Lists in pages: keyset cursors over ids, which sort by age. A cursor is opaque to clients."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from jobs.errors import FieldError, InvalidRequest

MAX_LIMIT = 200
DEFAULT_LIMIT = 50
_T = TypeVar("_T")


@dataclass(frozen=True)
class Page(Generic[_T]):
    """Some rows, and where the next ones begin."""

    items: Sequence[_T]
    next_cursor: str | None


def cut(rows: Sequence[_T], limit: int, key: Callable[[_T], str]) -> Page[_T]:
    """Returns the page of a query that asked for limit + 1 rows."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], encode_cursor(key(rows[limit - 1])))


def encode_cursor(key: str) -> str:
    """Returns the cursor behind the row of that key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Returns the key in a cursor.

    Raises:
        InvalidRequest: it is not a cursor of ours.
    """
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:  # Not ASCII, not base64, or not UTF-8 inside.
        key = ""
    if not key.isprintable() or not key:
        raise invalid_cursor()
    return key


def invalid_cursor() -> InvalidRequest:
    """Returns the error of a cursor that no list of ours gave out."""
    return InvalidRequest([FieldError("invalid_cursor", "this is not a next_cursor of this list", parameter="cursor")])
