"""The shape of metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from jobs.tables import Metric

MAX_ROWS = 20_000  # Short rows: a run of a thousand steps is one page.


class MetricBody(BaseModel):
    """One number of one step."""

    step: int
    name: str
    value: float
    created_at: datetime


class MetricsQuery(BaseModel):
    """Which numbers, and in which format."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=MAX_ROWS, ge=1, le=MAX_ROWS)
    cursor: str | None = Field(default=None, max_length=500)
    names: list[str] = Field(default_factory=list, description="repeated, or separated by commas; all if left out")
    from_step: int | None = Field(default=None, ge=0, lt=2**31)
    to_step: int | None = Field(default=None, ge=0, lt=2**31)
    max_points: int = Field(default=2_000, ge=2, le=20_000, description="per name, evenly thinned, ends kept")
    format: Literal["json", "csv", "ndjson"] = "json"

    @field_validator("names")
    @classmethod
    def _split(cls, values: list[str]) -> list[str]:
        return [name.strip() for value in values for name in value.split(",") if name.strip()]


def body_of(metric: Metric) -> MetricBody:
    """Returns the body of one number."""
    return MetricBody(step=metric.step, name=metric.name, value=metric.value, created_at=metric.created_at)
