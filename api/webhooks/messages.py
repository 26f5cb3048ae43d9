"""What is sent to webhook endpoints, for the OpenAPI document. `jobs.webhooks` writes it and a worker sends it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.jobs.schemas import StatusReasonBody

_REF = "#/components/schemas/{model}"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    timestamp: datetime = Field(description="when it happened; `webhook-timestamp` is when it was sent")


class JobState(BaseModel):
    """Where a job stands; ask for the rest by its id."""

    model_config = ConfigDict(extra="forbid")

    job_id: str
    status: str
    status_reason: StatusReasonBody | None
    attempt: int
    version: int


class JobMessage(_Message):
    """A job has taken another status."""

    type: Literal[
        "job.queued",
        "job.running",
        "job.pausing",
        "job.paused",
        "job.cancelling",
        "job.succeeded",
        "job.failed",
        "job.cancelled",
    ]
    data: JobState


class CheckpointMade(BaseModel):
    """A checkpoint that was committed: a state to go on from, or the adapter."""

    model_config = ConfigDict(extra="forbid")

    job_id: str
    checkpoint_id: str
    kind: Literal["state", "adapter"]
    step: int
    eval_reward: float | None


class CheckpointMessage(_Message):
    """A job has committed a checkpoint."""

    type: Literal["checkpoint.created"]
    data: CheckpointMade


class PingData(BaseModel):
    """To whom it was sent."""

    model_config = ConfigDict(extra="forbid")

    endpoint_id: str


class PingMessage(_Message):
    """Somebody tries the endpoint out."""

    type: Literal["webhook.ping"]
    data: PingData


MESSAGES = (JobMessage, CheckpointMessage, PingMessage)
_HEADERS = {
    "webhook-id": "the message's id, the same each time that it is sent; later messages have later ids",
    "webhook-timestamp": "when it was sent, seconds since 1970",
    "webhook-signature": "`v1,` and the signature in base64; several, with spaces between, while a secret is rotated",
}


def webhooks_section() -> dict[str, Any]:
    """Returns `webhooks` of the document: the request that we send, and what we take for a delivery."""
    schema = {"oneOf": [{"$ref": _REF.format(model=message.__name__)} for message in MESSAGES]}
    operation = {
        "operationId": "receiveWebhook",
        "summary": "What an endpoint is sent (Standard Webhooks 1.0.0), at least once",
        "tags": ["webhooks"],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "2XX": {"description": "It is delivered"},
            "410": {"description": "The endpoint is disabled"},
            "default": {"description": "It is sent again later"},
        },
    }
    return {"message": {"post": operation}}
