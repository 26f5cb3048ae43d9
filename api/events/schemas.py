"""The shape of events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.jobs.schemas import JobSummary
from jobs.pages import MAX_LIMIT
from jobs.tables import Event


class EventBody(BaseModel):
    """One event; `seq` counts 1, 2, 3, … within the job."""

    seq: int
    type: str = Field(examples=["status", "metric", "checkpoint"])
    data: dict[str, Any]
    created_at: datetime


class EventsQuery(BaseModel):
    """Which events, and how long to wait for them."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, lt=2**63, description="events with a `seq` above this")
    wait: float = Field(default=0, ge=0, le=60, description="seconds to wait for one if there is none yet")
    limit: int = Field(default=MAX_LIMIT, ge=1, le=MAX_LIMIT)


class StreamQuery(BaseModel):
    """Where a stream begins."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, lt=2**63, description="events with a `seq` above this")


class EventList(BaseModel):
    """Events in order. `next_cursor` is the `after` of the next request, also when there are no more for now."""

    data: list[EventBody]
    has_more: bool
    next_cursor: str
    job_status: str = Field(description="of the job when this was read")
    job: JobSummary = Field(description="the job when this was read: who follows it needs no second request")


def body_of(event: Event) -> EventBody:
    """Returns the body of one event."""
    return EventBody(seq=event.seq, type=event.type, data=event.data, created_at=event.created_at)
