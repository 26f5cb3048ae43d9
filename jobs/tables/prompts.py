"""Prompt sets: written once, read by every job that names them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, id_column, now_column


class Dataset(Base):
    """A prompt set. Its prompts never change; `deleted_at` is set when they were removed."""

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_project_id_id", "project_id", "id"),)

    id: Mapped[str] = id_column("ds")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    metadata_: Mapped[dict[str, str]] = mapped_column("metadata")
    splits: Mapped[dict[str, int]] = mapped_column(JSONB, comment="number of prompts of each split")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="of all prompts as UTF-8")
    sha256: Mapped[str] = mapped_column(comment="of the prompts, by split")
    created_at: Mapped[datetime] = now_column()
    deleted_at: Mapped[datetime | None]


class DatasetSplit(Base):
    """The prompts of one split, in their order."""

    __tablename__ = "dataset_splits"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    prompts: Mapped[list[str]] = mapped_column(JSONB, deferred=True)


class JobDataset(Base):
    """A job that names a dataset: it must be able to read it until it has ended."""

    __tablename__ = "job_datasets"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True)
