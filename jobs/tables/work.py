"""Jobs, who runs them, and what they made.

Rows of a trainer's output (metrics, samples, checkpoints, artifacts) carry the `epoch` of the lease that wrote them.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.states import Desired, Status
from jobs.tables.base import Base, Document, id_column, now_column


def _one_of(column: str, values: type[Status] | type[Desired]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(str(value)) for value in values)})", name=column)


class Job(Base):
    """An alignment job: what was asked, where it stands, and the lease of the worker that has it.

    `epoch` counts leases and fences writers; `attempt` counts the attempts that a user sees. `next_seq` is the number
    of the next event, `num_log_events` counts those of type `log`. `version` grows with each change that users can see.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("status", Status),
        _one_of("desired_state", Desired),
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_project_id_status_id", "project_id", "status", "id"),
        Index("ix_jobs_project_id_name_id", "project_id", "name", "id"),
        Index("ix_jobs_project_id_base_model_id", "project_id", "base_model", "id"),
        Index("ix_jobs_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
        Index(
            "ix_jobs_lanes",
            "priority",
            text("coalesce(gpu_type, '')"),
            "num_gpus",
            "project_id",
            "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index("ix_jobs_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_jobs_pause_at", "pause_at", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_leased", "lease_expires_at", postgresql_where=text("lease_owner IS NOT NULL")),
    )

    id: Mapped[str] = id_column("job")
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
    avoid_worker: Mapped[str | None] = mapped_column(comment="whose machine is suspect, until avoid_until")
    avoid_until: Mapped[datetime | None]

    priority: Mapped[int] = mapped_column(Integer, server_default=text("0"), comment="class: higher is claimed first")
    num_gpus: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    gpu_type: Mapped[str | None] = mapped_column(comment="the pool it needs; NULL: any")
    gpu_seconds: Mapped[float] = mapped_column(server_default=text("0"), comment="of the attempts that have ended")
    max_gpu_hours: Mapped[float | None] = mapped_column(comment="a job that has used them is paused")
    pause_at: Mapped[datetime | None] = mapped_column(comment="its owner's deadline; then it is paused")

    next_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    num_log_events: Mapped[int] = mapped_column(
        BigInteger, server_default=text("0"), comment="asked for; jobs.events keeps so many"
    )
    progress: Mapped[Document]
    version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    created_at: Mapped[datetime] = now_column()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = now_column()


class Attempt(Base):
    """One lease of a job by one worker, and how it ended."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "epoch"),)

    id: Mapped[str] = id_column("att")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    epoch: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str]
    gpu_type: Mapped[str] = mapped_column(server_default=text("'cpu'"), comment="of the worker's pool")
    num_gpus: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    resumed_from_step: Mapped[int | None] = mapped_column(Integer)
    last_step: Mapped[int | None] = mapped_column(Integer)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    outcome: Mapped[str | None] = mapped_column(comment="the status that the job took when the attempt ended")
    reason: Mapped[Document | None] = mapped_column(JSONB(none_as_null=True))
    started_at: Mapped[datetime] = now_column()
    finished_at: Mapped[datetime | None]


class Event(Base):
    """What happened to a job, numbered 1, 2, 3, … without gaps in the order of the commits."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str]
    data: Mapped[Document]
    created_at: Mapped[datetime] = now_column()


class Metric(Base):
    """One number of one step; a replayed step overwrites it, an older epoch cannot."""

    __tablename__ = "metrics"
    __table_args__ = (CheckConstraint("value > '-Infinity' AND value < 'Infinity'", name="finite"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    epoch: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = now_column()


class Sample(Base):
    """One image that the trainer drew; `path` is its name in the run folder and is drawn again by a replayed step."""

    __tablename__ = "samples"
    __table_args__ = (
        UniqueConstraint("job_id", "path"),
        Index("ix_samples_job_id_id", "job_id", "id"),
        Index("ix_samples_job_id_prompt_index_id", "job_id", "prompt_index", "id"),
        Index("ix_samples_job_id_step_id", "job_id", "step", "id"),
    )

    id: Mapped[str] = id_column("smp")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    epoch: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    path: Mapped[str]
    prompt: Mapped[str]
    prompt_index: Mapped[int | None] = mapped_column(Integer, comment="among the prompts of the evaluation")
    seed: Mapped[int] = mapped_column(BigInteger)
    rewards: Mapped[dict[str, float]]
    passed: Mapped[bool | None]
    object_key: Mapped[str]
    content_type: Mapped[str] = mapped_column(server_default="image/png")
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = now_column()


class Checkpoint(Base):
    """A committed checkpoint: every file of it is in the store and was verified before this row was written.

    `files` is [{path, sha256, size_bytes}]; a file's key is `object_prefix` + "/" + path. `deleted_at` is set when
    retention or the owner removes it, `purged_at` when its files are gone. A pinned one is removed by neither.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (
        CheckConstraint("kind IN ('state', 'adapter')", name="kind"),
        UniqueConstraint("job_id", "epoch", "kind", "step"),
        Index("ix_checkpoints_job_id_id", "job_id", "id"),
    )

    id: Mapped[str] = id_column("ckpt")
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
    created_at: Mapped[datetime] = now_column()
    pinned_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]


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
    created_at: Mapped[datetime] = now_column()


class Worker(Base):
    """A worker that polls the queue: how the service knows whether anybody will take a queued job."""

    __tablename__ = "workers"

    owner: Mapped[str] = mapped_column(primary_key=True)
    gpu_type: Mapped[str] = mapped_column(server_default=text("'cpu'"))
    num_gpus: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    draining_at: Mapped[datetime | None] = mapped_column(comment="since when it is to take no more jobs")
    refusal: Mapped[str | None] = mapped_column(comment="why it takes none now, as it says itself")
    started_at: Mapped[datetime] = now_column()
    last_seen_at: Mapped[datetime] = now_column()
