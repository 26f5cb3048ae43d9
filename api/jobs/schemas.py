"""The shape of a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.artifacts.schemas import ArtifactBody
from api.pagination import ListQuery
from jobs.states import Action, Actor, Status, allowed_actions
from jobs.tables import Job
from jobs.workers import QueuePlace


class StatusReasonBody(BaseModel):
    """Why the status is what it is."""

    code: str = Field(examples=["worker_lost"])
    message: str
    retryable: bool
    actor: Actor


class ProgressBody(BaseModel):
    """How far the training is."""

    step: int
    total_steps: int
    steps_per_second: float | None = None
    eta_seconds: float | None = None


class JobSummary(BaseModel):
    """A job without its spec."""

    id: str = Field(examples=["job_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    name: str
    metadata: dict[str, str]
    base_model: str
    status: Status
    phase: str | None = Field(description="an open set: new ones may come")
    status_reason: StatusReasonBody | None
    allowed_actions: list[Action]
    attempt: int
    version: int
    progress: ProgressBody
    queue: QueuePlace | None = Field(description="where a queued job stands, and why it waits")
    spec_digest: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime


class JobBody(JobSummary):
    """A job, whole: the spec shows every default filled in."""

    spec: dict[str, Any]
    artifacts: list[ArtifactBody] = Field(description="files beside the adapter that are there so far")


class JobsQuery(ListQuery):
    """Which jobs."""

    status: list[Status] = Field(default_factory=list, description="any of these")
    name: str | None = Field(default=None, max_length=200, description="exactly this name")


def summary_of(job: Job, place: QueuePlace | None) -> JobSummary:
    """Returns the body of a job in a list."""
    return JobSummary(**_members(job, place))


def body_of(job: Job, place: QueuePlace | None, artifacts: list[ArtifactBody]) -> JobBody:
    """Returns the body of one job."""
    return JobBody(**_members(job, place), spec=job.spec, artifacts=artifacts)


def _members(job: Job, place: QueuePlace | None) -> dict[str, Any]:
    same = ("id", "name", "base_model", "status", "phase", "status_reason", "attempt", "version", "progress")
    times = ("spec_digest", "created_at", "started_at", "finished_at", "updated_at")
    return {
        **{name: getattr(job, name) for name in (*same, *times)},
        "metadata": job.metadata_,
        "allowed_actions": allowed_actions(job.status),
        "queue": place,
    }
