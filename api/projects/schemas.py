"""The shape of projects."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from egrpo.spec_model import SpecModel
from jobs.quotas import Use
from jobs.tables import Project


class ProjectLimits(SpecModel):
    """What a project may use; null does not bind. Jobs above the first two wait; storage refuses what is asked for."""

    max_concurrent_jobs: int | None = Field(default=None, ge=1, le=1_000_000)
    max_gpu_hours: float | None = Field(default=None, gt=0, le=1e9, description="in a calendar month, UTC")
    max_storage_bytes: int | None = Field(default=None, ge=1, le=2**60, description="of files and datasets")


class NewProject(SpecModel):
    """A project to make."""

    name: str = Field(min_length=1, max_length=200, examples=["posters"])
    limits: ProjectLimits = Field(default_factory=ProjectLimits)


class ProjectChanges(SpecModel):
    """What may be changed about a project; what is left out stays, and null takes a limit away."""

    name: str = Field(default="", min_length=1, max_length=200)
    limits: ProjectLimits = Field(default_factory=ProjectLimits)

    def columns(self) -> dict[str, Any]:
        """Returns the columns that change, and their values."""
        name = {"name": self.name} if "name" in self.model_fields_set else {}
        return {**name, **self.limits.model_dump(exclude_unset=True)}


class ProjectUse(BaseModel):
    """What a project uses now."""

    running_jobs: int
    gpu_hours: float = Field(description="in this calendar month, UTC, running attempts included")
    storage_bytes: int = Field(description="as measured in the last minute")


class ProjectSummary(BaseModel):
    """A project in a list."""

    id: str = Field(examples=["prj_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    name: str
    limits: ProjectLimits
    version: int
    created_at: datetime


class ProjectBody(ProjectSummary):
    """A project, and what it uses."""

    use: ProjectUse


def summary_of(project: Project) -> ProjectSummary:
    """Returns the body of a project in a list."""
    limits = {name: getattr(project, name) for name in ProjectLimits.model_fields}
    members = {name: getattr(project, name) for name in ("id", "name", "version", "created_at")}
    return ProjectSummary(**members, limits=ProjectLimits(**limits))


def body_of(project: Project, use: Use) -> ProjectBody:
    """Returns the body of one project."""
    shown = ProjectUse(running_jobs=use.running_jobs, gpu_hours=use.gpu_hours, storage_bytes=use.storage_bytes)
    return ProjectBody(**dict(summary_of(project)), use=shown)
