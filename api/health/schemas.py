"""The shape of health answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Check = Literal["up", "down"]


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What the API needs: it answers without broker and store, with less; without the database it cannot."""

    status: Literal["ready", "degraded"]
    down: list[str] = Field(examples=[["broker"]])
    checks: dict[str, Check]
