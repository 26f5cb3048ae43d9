"""The shape of the audit log."""

from __future__ import annotations

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, Field

from api.administration import ProjectQuery
from api.pagination import ListQuery
from jobs.tables import AuditEvent


class AuditEventBody(BaseModel):
    """One thing that a key did."""

    id: str = Field(examples=["aud_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    project_id: str
    key_id: str = Field(description="who: the API key")
    address: str = Field(description="from where; a proxy's, if the server does not trust it")
    action: str = Field(description="the `operationId`", examples=["cancelJob"])
    path: str = Field(description="of the request, without its query")
    target_id: str | None = Field(description="what was made, changed or read")
    digest_before: str | None = Field(description="SHA-256 of its row before; null: there was none, or it is not kept")
    digest_after: str | None
    request_id: str
    created_at: datetime


class AuditEventsQuery(ListQuery, ProjectQuery):
    """Which events."""

    action: str | None = Field(default=None, max_length=100)
    key_id: str | None = Field(default=None, max_length=100)
    target_id: str | None = Field(default=None, max_length=100)
    created_after: AwareDatetime | None = Field(default=None, description="at this time or later, with its offset")
    created_before: AwareDatetime | None = Field(default=None, description="before this time, with its offset")


def body_of(row: AuditEvent) -> AuditEventBody:
    """Returns the body of an event."""
    return AuditEventBody.model_validate(row, from_attributes=True)
