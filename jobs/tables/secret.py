"""Secrets of projects, encrypted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, id_column, now_column


class Secret(Base):
    """A secret; `sealed` is made and read by `jobs.sealing` alone."""

    __tablename__ = "secrets"
    __table_args__ = (UniqueConstraint("project_id", "name"), Index("ix_secrets_project_id_id", "project_id", "id"))

    id: Mapped[str] = id_column("sec")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    sealed: Mapped[str] = mapped_column(deferred=True)
    created_at: Mapped[datetime] = now_column()
    replaced_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
