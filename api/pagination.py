"""The shape of lists and the parameters that all of them take."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from jobs.pages import DEFAULT_LIMIT, MAX_LIMIT

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


class NoQuery(BaseModel):
    """An endpoint without query parameters: any is an error."""

    model_config = ConfigDict(extra="forbid")
