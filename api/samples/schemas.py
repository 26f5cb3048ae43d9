"""The shape of samples."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from api.pagination import ListQuery
from jobs.tables import Sample


class SampleBody(BaseModel):
    """An image that the trainer drew, and what it was worth."""

    id: str
    step: int
    kind: str = Field(description="`evaluation`: the fixed grid; `best`, `worst`: the extremes", examples=["best"])
    prompt: str
    prompt_index: int | None = Field(
        description="among the prompts of the evaluation, the same at every step; null for older samples"
    )
    seed: int
    rewards: dict[str, float]
    passed: bool | None
    size_bytes: int
    sha256: str
    image_url: str = Field(description="path of the image on this API")
    created_at: datetime


class SamplesQuery(ListQuery):
    """Which samples."""

    step: int | None = Field(default=None, ge=0, lt=2**31, description="of this step")
    from_step: int | None = Field(default=None, ge=0, lt=2**31, description="of this step or a later one")
    to_step: int | None = Field(default=None, ge=0, lt=2**31, description="of this step or an earlier one")
    kind: str | None = Field(default=None, max_length=64, description="`evaluation`, `best` or `worst`")
    prompt_index: int | None = Field(default=None, ge=0, lt=2**31, description="of this prompt of the evaluation")


def body_of(sample: Sample) -> SampleBody:
    """Returns the body of one sample."""
    same = ("id", "step", "kind", "prompt", "prompt_index", "seed", "rewards", "passed")
    file = ("size_bytes", "sha256", "created_at")
    return SampleBody(
        **{name: getattr(sample, name) for name in (*same, *file)},
        image_url=f"/v1/jobs/{sample.job_id}/samples/{sample.id}/image",
    )
