"""The shape of webhook endpoints, and of deliveries to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.pagination import ListQuery
from egrpo.spec_model import SpecModel
from jobs.tables import Document, WebhookDelivery, WebhookEndpoint
from jobs.webhooks import EventType

_WEEK_S = 7 * 86_400
Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description="https, port 443 or 8443, a public host name",
        examples=["https://hooks.example.com/egrpo"],
    ),
]
Events = Annotated[
    list[EventType], Field(min_length=1, max_length=50, description="`*`: all of them, those of later versions too")
]
Description = Annotated[str, Field(max_length=500)]


class NewWebhookEndpoint(SpecModel):
    """Who is to be told, and of what."""

    url: Url
    events: Events = Field(default=["*"], examples=[["job.succeeded", "job.failed"]])
    description: Description = ""


class WebhookEndpointChanges(SpecModel):
    """What may be changed about an endpoint; what is left out stays."""

    # Defaults of no meaning: only what was given is looked at, and null is no value of any.
    url: Url = ""
    events: Events = Field(default_factory=list)
    description: Description = ""
    enabled: bool = Field(default=True, description="true also ends a disabling for failures, and `held_until`")


class WebhookEndpointBody(BaseModel):
    """An endpoint without its secret."""

    id: str = Field(examples=["whe_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    url: str
    events: list[str]
    description: str
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: str | None = Field(description="`user`; `failing`: for too long; `gone`: it answered 410")
    failing_since: datetime | None = Field(description="the first failure after the last success")
    held_until: datetime | None = Field(description="it answered 429 or 503 with `Retry-After`: nothing is sent before")
    created_at: datetime


class IssuedWebhookEndpointBody(WebhookEndpointBody):
    """An endpoint as it is shown with a new secret."""

    secret: str | None = Field(
        description="verifies signatures; shown this once, null when the answer is replayed, for it is not stored",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )


class RotateSecretQuery(BaseModel):
    """How the old secret ends."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: int = Field(default=86_400, ge=0, le=_WEEK_S, description="how long the old secret signs as well")


class WebhookDeliveryBody(BaseModel):
    """A message to an endpoint, and what became of it."""

    id: str = Field(description="the message's `webhook-id`", examples=["msg_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    type: str = Field(examples=["job.succeeded"])
    data: Document
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    response_status: int | None = Field(description="of the last attempt; null if there was no answer")
    error: str | None = Field(description="why there was no answer")
    delivered_at: datetime | None
    created_at: datetime


class DeliveriesQuery(ListQuery):
    """Which messages."""

    status: list[Literal["pending", "delivered", "failed"]] = Field(default_factory=list, max_length=3)
    type: str | None = Field(default=None, max_length=100)


def body_of(endpoint: WebhookEndpoint) -> WebhookEndpointBody:
    """Returns the body of an endpoint."""
    return WebhookEndpointBody(
        id=endpoint.id,
        url=endpoint.url,
        events=endpoint.events,
        description=endpoint.description,
        enabled=endpoint.disabled_at is None,
        disabled_at=endpoint.disabled_at,
        disabled_reason=endpoint.disabled_reason,
        failing_since=endpoint.failing_since,
        held_until=endpoint.held_until,
        created_at=endpoint.created_at,
    )


def delivery_body_of(delivery: WebhookDelivery) -> WebhookDeliveryBody:
    """Returns the body of a message."""
    return WebhookDeliveryBody.model_validate(delivery, from_attributes=True)
