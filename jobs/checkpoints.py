"""Committed checkpoints: states to resume from and exported adapters.

A row is written after every file of it was uploaded and verified. Writers hold the job by `leases.guard`, and who pins
or deletes holds it by `jobs.get`; readers have found the job in their project.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs import webhooks
from jobs.errors import CheckpointNeeded, NotFound
from jobs.ids import new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.states import TERMINAL
from jobs.tables import Checkpoint, Document, Job


def add(
    session: Session,
    job_id: str,
    epoch: int,
    *,
    step: int,
    kind: str,
    object_prefix: str,
    files: Sequence[Document],
    spec_digest: str,
    eval_reward: float | None = None,
    format: str | None = None,
) -> str:
    """Commits a checkpoint whose files [{path, sha256, size_bytes}] are in the store, and returns its id."""
    row = Checkpoint(
        id=new_id("ckpt"),
        job_id=job_id,
        epoch=epoch,
        step=step,
        kind=kind,
        format=format,
        object_prefix=object_prefix,
        files=list(files),
        size_bytes=sum(file["size_bytes"] for file in files),
        spec_digest=spec_digest,
        eval_reward=eval_reward,
    )
    session.add(row)
    session.flush()
    project_id = session.scalars(select(Job.project_id).where(Job.id == job_id)).one()
    told = {"job_id": job_id, "checkpoint_id": row.id, "kind": kind, "step": step, "eval_reward": eval_reward}
    webhooks.announce(session, project_id, "checkpoint.created", told)
    return row.id


def of_kind(session: Session, job_id: str, kind: str) -> list[Checkpoint]:
    """Returns the states, or the adapters, the best choice first: highest step, then latest epoch."""
    statement = (
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id, Checkpoint.kind == kind, Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.step.desc(), Checkpoint.epoch.desc())
    )
    return list(session.scalars(statement))


def page(
    session: Session, job_id: str, *, limit: int, cursor: str | None = None, kind: str | None = None
) -> Page[Checkpoint]:
    """Returns checkpoints whose files are there, oldest first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = (
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.id)
        .limit(limit + 1)
    )
    if cursor is not None:
        statement = statement.where(Checkpoint.id > decode_cursor(cursor))
    if kind is not None:
        statement = statement.where(Checkpoint.kind == kind)
    return cut(list(session.scalars(statement)), limit, lambda checkpoint: checkpoint.id)


def get(session: Session, job_id: str, checkpoint_id: str) -> Checkpoint:
    """Returns one checkpoint whose files are there.

    Raises:
        NotFound: the job has no such checkpoint.
    """
    statement = select(Checkpoint).where(
        Checkpoint.job_id == job_id, Checkpoint.id == checkpoint_id, Checkpoint.deleted_at.is_(None)
    )
    checkpoint = session.scalar(statement)
    if checkpoint is None:
        raise NotFound(f"the job has no checkpoint {checkpoint_id!r}")
    return checkpoint


def file(session: Session, job_id: str, checkpoint_id: str, path: str) -> tuple[str, Document]:
    """Returns the object key and the manifest entry of one file.

    Raises:
        NotFound: the job has no such checkpoint, or the checkpoint no such file.
    """
    return file_of(get(session, job_id, checkpoint_id), path)


def file_of(checkpoint: Checkpoint, path: str) -> tuple[str, Document]:
    """Returns the object key and the manifest entry of one file of a checkpoint at hand.

    Raises:
        NotFound: the checkpoint has no such file.
    """
    # Only what the manifest lists can be asked for, so a path cannot lead anywhere else.
    entry = next((entry for entry in checkpoint.files if entry["path"] == path), None)
    if entry is None:
        raise NotFound(f"the checkpoint has no file {path!r}")
    return f"{checkpoint.object_prefix}/{path}", entry


def pin(session: Session, job: Job, checkpoint_id: str) -> Checkpoint:
    """Keeps a checkpoint of a locked job from retention and deletion; again changes nothing. Returns it.

    Raises:
        NotFound: the job has no such checkpoint.
    """
    checkpoint = get(session, job.id, checkpoint_id)
    if checkpoint.pinned_at is None:
        checkpoint.pinned_at = func.now()
        session.flush()
        session.refresh(checkpoint)
    return checkpoint


def unpin(session: Session, job: Job, checkpoint_id: str) -> Checkpoint:
    """Leaves a checkpoint of a locked job to retention again and returns it.

    Raises:
        NotFound: the job has no such checkpoint.
    """
    checkpoint = get(session, job.id, checkpoint_id)
    checkpoint.pinned_at = None
    session.flush()
    return checkpoint


def delete(session: Session, job: Job, checkpoint_id: str) -> None:
    """Marks a checkpoint of a locked job as deleted: nobody finds it any more, and its files go later.

    Raises:
        NotFound: the job has no such checkpoint.
        CheckpointNeeded: it is pinned, the job would resume from it, or it is the job's result.
    """
    checkpoint = get(session, job.id, checkpoint_id)
    if checkpoint.pinned_at is not None:
        raise CheckpointNeeded("the checkpoint is pinned; unpin it first", needed_for="pin")
    if checkpoint.kind == "adapter" and checkpoint.id == of_kind(session, job.id, "adapter")[0].id:
        detail = f"the checkpoint is what the job was run for; after a success, DELETE /v1/adapters/{checkpoint.id}"
        raise CheckpointNeeded(detail, needed_for="adapter")
    if job.status not in TERMINAL and checkpoint.id == _resumed_next(session, job):
        raise CheckpointNeeded(f"the {job.status} job would resume from this checkpoint", needed_for="resume")
    checkpoint.deleted_at = func.clock_timestamp()
    session.flush()


def _resumed_next(session: Session, job: Job) -> str | None:
    """Returns the id of the state from which the next attempt of the job would go on."""
    states = of_kind(session, job.id, "state")
    return next((state.id for state in states if state.spec_digest == job.spec_digest), None)
