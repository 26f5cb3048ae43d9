"""The shape of lists and the parameters that all of them take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from jobs.pages import DEFAULT_LIMIT, MAX_LIMIT, cut, decode_cursor

_T = TypeVar("_T")


class List(BaseModel, Generic[_T]):
    """One page of a list."""

    data: list[_T]
    has_more: bool
    next_cursor: str | None = Field(description="give it back as `cursor` for the next page")


class ListQuery(BaseModel):
    """Which page; unknown parameters are errors."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(default=None, max_length=500)


def whole_list(items: Sequence[_T], query: ListQuery, key: Callable[[_T], str]) -> List[_T]:
    """Returns a page of a short list that is at hand as a whole, sorted by key."""
    after = "" if query.cursor is None else decode_cursor(query.cursor)
    page = cut([item for item in items if key(item) > after][: query.limit + 1], query.limit, key)
    return List(data=list(page.items), has_more=page.next_cursor is not None, next_cursor=page.next_cursor)


class NoQuery(BaseModel):
    """An endpoint without query parameters: any is an error."""

    model_config = ConfigDict(extra="forbid")
