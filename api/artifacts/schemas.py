"""The shape of artifacts."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

from pydantic import BaseModel, Field

from jobs.tables import Artifact


class ArtifactBody(BaseModel):
    """A file beside the adapter."""

    name: str = Field(examples=["report.json"])
    content_type: str
    size_bytes: int
    sha256: str
    url: str = Field(description="path of the file on this API")
    created_at: datetime


def body_of(artifact: Artifact) -> ArtifactBody:
    """Returns the body of one artifact."""
    same = ("name", "content_type", "size_bytes", "sha256", "created_at")
    url = f"/v1/jobs/{artifact.job_id}/artifacts/{quote(artifact.name)}"
    return ArtifactBody(**{name: getattr(artifact, name) for name in same}, url=url)
