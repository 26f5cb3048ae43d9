"""The shape of a job."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from api.artifacts.schemas import ArtifactBody
from api.pagination import ListQuery
from jobs import limits
from jobs.queue_places import QueuePlace
from jobs.spec import Limits, MetadataKey, MetadataValue
from jobs.states import Action, Actor, Status, allowed_actions
from jobs.tables import Job


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
    limits: Limits = Field(description="those that hold now; what was submitted is in the spec")
    gpu_seconds: float = Field(description="used by the attempts that have ended")
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


_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


class JobsQuery(ListQuery):
    """Which jobs."""

    status: list[Status] = Field(default_factory=list, description="any of these")
    name: str | None = Field(default=None, max_length=200, description="exactly this name")
    base_model: str | None = Field(default=None, max_length=300, description="catalogue id, or repo@revision")
    created_after: AwareDatetime | None = Field(default=None, description="at this time or later, with its offset")
    created_before: AwareDatetime | None = Field(default=None, description="before this time, with its offset")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict,
        max_length=16,
        description="as in `metadata[ticket]=ML-88`: all of these pairs",
        examples=[{"ticket": "ML-88"}],
    )
    order: Literal["desc", "asc"] = Field(default="desc", description="newest or oldest first")

    @model_validator(mode="before")
    @classmethod
    def _gather_metadata(cls, parameters: Any) -> Any:
        """Takes `metadata[…]=…` together, as OpenAPI's style `deepObject` writes an object."""
        if not isinstance(parameters, dict):
            return parameters
        found = {name: match[1] for name in parameters if (match := _METADATA.fullmatch(name))}
        if not found:
            return parameters
        others = {name: value for name, value in parameters.items() if name not in found}
        return {**others, "metadata": {key: parameters[name] for name, key in found.items()}}


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
        "limits": limits.of(job),
        "gpu_seconds": job.gpu_seconds,
        "queue": place,
    }
