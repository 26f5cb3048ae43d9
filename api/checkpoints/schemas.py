"""The shape of checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from api.pagination import ListQuery
from jobs.tables import Checkpoint


class FileBody(BaseModel):
    """One file of the manifest."""

    path: str
    sha256: str
    size_bytes: int
    url: str = Field(description="path of the file on this API")


class CheckpointBody(BaseModel):
    """A committed checkpoint: a `state` to resume from, or the exported `adapter`."""

    id: str
    step: int
    kind: Literal["state", "adapter"]
    format: str | None = Field(description="formats of an adapter, separated by commas: diffusers, peft, comfyui")
    eval_reward: float | None
    spec_digest: str
    size_bytes: int
    files: list[FileBody]
    pinned_at: datetime | None = Field(description="since when its owner keeps it from retention and deletion")
    expires_at: datetime | None = Field(description="when it goes because its job has ended; null if it does not")
    created_at: datetime


class CheckpointsQuery(ListQuery):
    """Which checkpoints."""

    kind: Literal["state", "adapter"] | None = None


def body_of(checkpoint: Checkpoint, expires_at: datetime | None) -> CheckpointBody:
    """Returns the body of one checkpoint."""
    same = ("id", "step", "kind", "format", "eval_reward", "spec_digest", "size_bytes", "pinned_at", "created_at")
    base = f"/v1/jobs/{checkpoint.job_id}/checkpoints/{checkpoint.id}/files"
    files = [_file(entry, base) for entry in checkpoint.files]
    return CheckpointBody(**{name: getattr(checkpoint, name) for name in same}, files=files, expires_at=expires_at)


def _file(entry: dict[str, Any], base: str) -> FileBody:
    url = f"{base}/{quote(entry['path'])}"
    return FileBody(path=entry["path"], sha256=entry["sha256"], size_bytes=entry["size_bytes"], url=url)
