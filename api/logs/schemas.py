"""The shape of a job's log."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from api.pagination import ListQuery
from jobs.logs import Level, Source
from jobs.pages import MAX_LIMIT
from jobs.states import Status
from jobs.tables import LogLine


class LogLineBody(BaseModel):
    """One line."""

    number: int = Field(description="counts within the job; the first ones are missing when there were too many")
    attempt: int
    source: Source = Field(
        description="`output`: what the trainer's processes print; `trainer`: what it reports; `supervisor`: its worker"
    )
    level: Level
    message: str
    created_at: datetime = Field(description="when it was written, up to a second or so after it was said")


class LogsQuery(ListQuery):
    """Which lines, and how long to wait for them."""

    attempt: int | None = Field(default=None, ge=1, lt=2**31, description="of this attempt only")
    source: list[Source] = Field(default_factory=list, description="any of these")
    tail: int | None = Field(
        default=None, ge=1, le=MAX_LIMIT, description="the last lines instead of the first; not together with `cursor`"
    )
    wait: float = Field(default=0, ge=0, le=60, description="seconds to wait for a line if there is none yet")


class LogLines(BaseModel):
    """Lines in order. `next_cursor` is the `cursor` of the next request, also when there are no more for now."""

    data: list[LogLineBody]
    has_more: bool
    next_cursor: str
    job_status: Status = Field(description="of the job when this was read; after an end, all is written that ever will")


def body_of(line: LogLine) -> LogLineBody:
    """Returns the body of one line."""
    return LogLineBody.model_validate(line, from_attributes=True)
