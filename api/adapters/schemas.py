"""The shape of adapters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args
from urllib.parse import quote

from pydantic import BaseModel, Field

from api.pagination import ListQuery
from jobs.adapters import Adapter, format_of

Format = Literal["diffusers", "peft", "comfyui"]
FORMATS: tuple[Format, ...] = get_args(Format)


class AdapterFileBody(BaseModel):
    """One file of an adapter."""

    path: str = Field(examples=["pytorch_lora_weights.safetensors"])
    format: Format | None = Field(description="the format that needs it; null for the model card")
    sha256: str
    size_bytes: int
    url: str = Field(description="path of the file on this API")


class AdapterBody(BaseModel):
    """What a job has made, with what it was made from."""

    id: str = Field(description="also that of its checkpoint", examples=["ckpt_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    job_id: str
    name: str = Field(description="the job's")
    metadata: dict[str, str] = Field(description="the job's")
    base_model: str
    step: int
    eval_reward: float | None
    spec_digest: str
    formats: list[Format] = Field(description="empty if the job trained the whole model")
    size_bytes: int
    files: list[AdapterFileBody]
    pinned_at: datetime | None
    created_at: datetime


class AdaptersQuery(ListQuery):
    """Which adapters."""

    name: str | None = Field(default=None, max_length=200, description="of a job with exactly this name")
    base_model: str | None = Field(default=None, max_length=300, description="catalogue id, or repo@revision")
    format: Format | None = Field(default=None, description="that can be had in this format")


def body_of(adapter: Adapter) -> AdapterBody:
    """Returns the body of one adapter."""
    checkpoint, job = adapter.checkpoint, adapter.job
    same = ("id", "job_id", "step", "eval_reward", "spec_digest", "size_bytes", "pinned_at", "created_at")
    return AdapterBody(
        **{name: getattr(checkpoint, name) for name in same},
        name=job.name,
        metadata=job.metadata_,
        base_model=job.base_model,
        formats=[name for name in FORMATS if name in (checkpoint.format or "").split(",")],
        files=[_file(entry, f"/v1/adapters/{checkpoint.id}/files") for entry in checkpoint.files],
    )


def _file(entry: dict[str, Any], base: str) -> AdapterFileBody:
    path = entry["path"]
    return AdapterFileBody.model_validate({**entry, "format": format_of(path), "url": f"{base}/{quote(path)}"})
