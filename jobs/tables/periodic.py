"""When the service's periodic tasks ran, and which maintenance process runs one now."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class PeriodicTask(Base):
    """One periodic task; `owner` is the process that runs it, or that died while it did."""

    __tablename__ = "periodic_tasks"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(comment="of the last run")
