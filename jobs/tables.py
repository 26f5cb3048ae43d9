"""The tables. The migrations make them; a test compares the two.

Rows of a trainer's output (metrics, samples, checkpoints, artifacts) carry the `epoch` of the lease that wrote them.
All times are the database's, with time zone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobs.states import Desired, Status

Document = dict[str, Any]


class Base(DeclarativeBase):
    """Base of all tables; constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        bool: Boolean,
        float: Double,
        datetime: DateTime(timezone=True),
        Document: JSONB,
        dict[str, str]: JSONB,
        dict[str, float]: JSONB,
        list[Document]: JSONB,
    }


def _now(**options: Any) -> Mapped[datetime]:
    return mapped_column(server_default=func.now(), **options)


def _id(prefix_check: str) -> Mapped[str]:
    # Ids sort as bytes, whatever the database's language.
    return mapped_column(Text(collation="C"), primary_key=True, comment=f"{prefix_check}_…")


class Project(Base):
    """A tenant."""

    __tablename__ = "projects"

    id: Mapped[str] = _id("prj")
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _now()


class APIKey(Base):
    """A key of a project; only its SHA-256 is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = _id("key")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str] = mapped_column(comment="the key's first characters, to recognise it in a list")
    created_at: Mapped[datetime] = _now()
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


def _one_of(column: str, values: type[Status] | type[Desired]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(str(value)) for value in values)})", name=column)


class Job(Base):
    """An alignment job: what was asked, where it stands, and the lease of the worker that has it.

    `epoch` counts leases and fences writers; `attempt` counts the attempts that a user sees. `next_seq` is the number
    of the next event. `version` grows with every change that a user can see.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("status", Status),
        _one_of("desired_state", Desired),
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_queued", "not_before", "id", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_leased", "lease_expires_at", postgresql_where=text("lease_owner IS NOT NULL")),
    )

    id: Mapped[str] = _id("job")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    metadata_: Mapped[dict[str, str]] = mapped_column("metadata", server_default=text("'{}'::jsonb"))
    # Up to 10 MB of prompts: read only by who needs it.
    spec: Mapped[Document] = mapped_column(deferred=True)
    spec_digest: Mapped[str]
    base_model: Mapped[str] = mapped_column(comment="catalogue id, or repo@revision; for lists and filters")

    status: Mapped[str] = mapped_column(server_default=Status.QUEUED)
    phase: Mapped[str | None]
    status_reason: Mapped[Document | None] = mapped_column(JSONB(none_as_null=True))
    desired_state: Mapped[str] = mapped_column(server_default=Desired.RUN)
    deadline_at: Mapped[datetime | None] = mapped_column(comment="when pausing or cancelling is forced")

    epoch: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    first_heartbeat_at: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    attempts_without_progress: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    not_before: Mapped[datetime | None]

    next_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    progress: Mapped[Document]
    version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    created_at: Mapped[datetime] = _now()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = _now()


class Attempt(Base):
    """One lease of a job by one worker, and how it ended."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "epoch"),)

    id: Mapped[str] = _id("att")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    epoch: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str]
    resumed_from_step: Mapped[int | None] = mapped_column(Integer)
    last_step: Mapped[int | None] = mapped_column(Integer)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    outcome: Mapped[str | None] = mapped_column(comment="the status that the job took when the attempt ended")
    reason: Mapped[Document | None] = mapped_column(JSONB(none_as_null=True))
    started_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None]


class Event(Base):
    """What happened to a job, numbered 1, 2, 3, … without gaps in the order of the commits."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str]
    data: Mapped[Document]
    created_at: Mapped[datetime] = _now()


class Metric(Base):
    """One number of one step; a replayed step overwrites it, an older epoch cannot."""

    __tablename__ = "metrics"
    __table_args__ = (CheckConstraint("value > '-Infinity' AND value < 'Infinity'", name="finite"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    epoch: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = _now()


class Sample(Base):
    """One image that the trainer drew; `path` is its name in the run folder and is drawn again by a replayed step."""

    __tablename__ = "samples"
    __table_args__ = (UniqueConstraint("job_id", "path"), Index("ix_samples_job_id_id", "job_id", "id"))

    id: Mapped[str] = _id("smp")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    epoch: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    path: Mapped[str]
    prompt: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    rewards: Mapped[dict[str, float]]
    passed: Mapped[bool | None]
    object_key: Mapped[str]
    content_type: Mapped[str] = mapped_column(server_default="image/png")
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = _now()


class Checkpoint(Base):
    """A committed checkpoint: every file of it is in the store and was verified before this row was written.

    `files` is [{path, sha256, size_bytes}]; a file's key is `object_prefix` + "/" + path. `deleted_at` is set when
    retention removed the files.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (
        CheckConstraint("kind IN ('state', 'adapter')", name="kind"),
        UniqueConstraint("job_id", "epoch", "kind", "step"),
        Index("ix_checkpoints_job_id_id", "job_id", "id"),
    )

    id: Mapped[str] = _id("ckpt")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    epoch: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    format: Mapped[str | None]
    object_prefix: Mapped[str]
    files: Mapped[list[Document]]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    spec_digest: Mapped[str]
    eval_reward: Mapped[float | None]
    created_at: Mapped[datetime] = _now()
    deleted_at: Mapped[datetime | None]


class Artifact(Base):
    """A file beside the adapter: report, contact sheet, curve. A later attempt replaces it."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)
    object_key: Mapped[str]
    content_type: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = _now()


class Worker(Base):
    """A worker that polls the queue: how the service knows whether anybody will take a queued job."""

    __tablename__ = "workers"

    owner: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = _now()
    last_seen_at: Mapped[datetime] = _now()


class IdempotencyKey(Base):
    """The stored answer to a POST, written in the transaction of its effect."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    status_code: Mapped[int] = mapped_column(Integer)
    response: Mapped[Document]
    created_at: Mapped[datetime] = _now()
