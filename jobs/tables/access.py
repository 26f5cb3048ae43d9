"""Who may ask for what: projects and their limits, API keys, and the stored answers of repeated requests."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Integer, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, Document, id_column, now_column


class Project(Base):
    """A tenant. A limit that is NULL does not bind."""

    __tablename__ = "projects"
    __table_args__ = (
        CheckConstraint("max_concurrent_jobs > 0", name="max_concurrent_jobs"),
        CheckConstraint("max_gpu_hours > 0", name="max_gpu_hours"),
        CheckConstraint("max_storage_bytes > 0", name="max_storage_bytes"),
    )

    id: Mapped[str] = id_column("prj")
    name: Mapped[str] = mapped_column(unique=True)
    max_concurrent_jobs: Mapped[int | None] = mapped_column(Integer)
    max_gpu_hours: Mapped[float | None] = mapped_column(comment="in a calendar month, UTC")
    max_storage_bytes: Mapped[int | None] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    created_at: Mapped[datetime] = now_column()


class StorageUse(Base):
    """What a project was found to store when it was last measured; a row of its own, so that nobody waits for it."""

    __tablename__ = "storage_use"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    measured_at: Mapped[datetime]


class APIKey(Base):
    """A key of a project; only its SHA-256 is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = id_column("key")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str] = mapped_column(comment="the key's first characters, to recognise it in a list")
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{*}'"))
    created_at: Mapped[datetime] = now_column()
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """The stored answer to a POST, written in the transaction of its effect."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    status_code: Mapped[int] = mapped_column(Integer)
    response: Mapped[Document]
    created_at: Mapped[datetime] = now_column(index=True)
