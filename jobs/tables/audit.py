"""Who did what: rows that nothing changes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, id_column, now_column


class AuditEvent(Base):
    """One thing that a key did, written in the transaction in which it was done. Key and target may be gone."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_project_id_id", "project_id", "id"),
        Index("ix_audit_events_target_id_id", "target_id", "id"),
        Index("ix_audit_events_created_at", "created_at"),
    )

    id: Mapped[str] = id_column("aud")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), comment="to whom it was done")
    key_id: Mapped[str]
    address: Mapped[str]
    action: Mapped[str] = mapped_column(comment="the operationId")
    path: Mapped[str]
    target_id: Mapped[str | None]
    digest_before: Mapped[str | None] = mapped_column(comment="SHA-256 of the target's row; NULL: there was none")
    digest_after: Mapped[str | None]
    request_id: Mapped[str]
    created_at: Mapped[datetime] = now_column()
