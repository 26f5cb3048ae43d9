"""The shape of an attempt."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from api.jobs.schemas import StatusReasonBody
from jobs.tables import Attempt


class AttemptBody(BaseModel):
    """One try of one worker."""

    id: str = Field(examples=["att_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    number: int = Field(description="1, 2, 3, … within the job")
    worker: str
    gpu_type: str = Field(description="of the worker's pool", examples=["h100"])
    num_gpus: int = Field(description="that the job has there")
    resumed_from_step: int | None = Field(description="of the checkpoint that it went on from; null if it began anew")
    last_step: int | None
    exit_code: int | None = Field(description="of the trainer, negative for a signal")
    outcome: str | None = Field(description="the status that the job took at its end; null while it runs")
    reason: StatusReasonBody | None
    started_at: datetime
    finished_at: datetime | None


def body_of(attempt: Attempt) -> AttemptBody:
    """Returns the body of one attempt."""
    return AttemptBody.model_validate(attempt, from_attributes=True)
