"""The shape of metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from jobs.metrics import MetricRow

MAX_ROWS = 20_000  # Short rows: a run of a thousand steps is one page.
MAX_POINTS = 2_000


class MetricBody(BaseModel):
    """One number of one step."""

    step: int
    name: str
    value: float
    created_at: datetime


class MetricsQuery(BaseModel):
    """Which numbers, and in which format."""

    model_config = ConfigDict(extra="forbid")

    limit: int | None = Field(default=None, ge=1, le=MAX_ROWS, description=f"JSON only; {MAX_ROWS} if left out")
    cursor: str | None = Field(default=None, max_length=500, description="JSON only")
    names: list[str] = Field(default_factory=list, description="repeated, or separated by commas; all if left out")
    from_step: int | None = Field(default=None, ge=0, lt=2**31)
    to_step: int | None = Field(default=None, ge=0, lt=2**31)
    max_points: int | None = Field(
        default=None,
        ge=2,
        le=20_000,
        description="most rows of a name: the first, the last, and the lowest and highest of even stretches of steps; "
        f"if left out {MAX_POINTS} in JSON, and every row as CSV and NDJSON",
    )
    format: Literal["json", "csv", "ndjson"] = Field(default="json", description="CSV and NDJSON are not paged")

    @field_validator("names")
    @classmethod
    def _split(cls, values: list[str]) -> list[str]:
        return [name.strip() for value in values for name in value.split(",") if name.strip()]


def body_of(row: MetricRow) -> MetricBody:
    """Returns the body of one number."""
    return MetricBody(step=row.step, name=row.name, value=row.value, created_at=row.created_at)
