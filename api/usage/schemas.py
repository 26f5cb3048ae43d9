"""The shape of usage."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, Field

from api.administration import ProjectQuery
from api.pagination import ListQuery


class UsageBody(BaseModel):
    """GPU time of one day and one type."""

    day: date = Field(description="UTC")
    gpu_type: str = Field(examples=["h100"], description="`cpu` for workers without GPUs")
    gpu_seconds: float


class UsageQuery(ListQuery, ProjectQuery):
    """Which days."""

    from_day: date | None = Field(default=None, description="UTC; 30 days ago")
    to_day: date | None = Field(default=None, description="UTC, included; today")
