"""GPU time of the attempts that have ended, summed up as they end: a limit is checked at every claim."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class GPUTime(Base):
    """What a project has used of one type of GPU in one day, UTC. It outlives the jobs."""

    __tablename__ = "gpu_time"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    day: Mapped[datetime] = mapped_column(primary_key=True, comment="its first moment")
    gpu_type: Mapped[str] = mapped_column(primary_key=True)
    gpu_seconds: Mapped[float]
