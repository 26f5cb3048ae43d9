"""Committed checkpoints: states to resume from and exported adapters.

A row is written after every file of it was uploaded and verified. Writers hold the job by `leases.guard`; readers have
found the job in their project.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.ids import new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.tables import Checkpoint, Document


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


def file(session: Session, job_id: str, checkpoint_id: str, path: str) -> tuple[str, Document]:
    """Returns the object key and the manifest entry of one file.

    Raises:
        NotFound: the job has no such checkpoint, or the checkpoint no such file.
    """
    statement = select(Checkpoint).where(
        Checkpoint.job_id == job_id, Checkpoint.id == checkpoint_id, Checkpoint.deleted_at.is_(None)
    )
    checkpoint = session.scalar(statement)
    if checkpoint is None:
        raise NotFound(f"the job has no checkpoint {checkpoint_id!r}")
    # Only what the manifest lists can be asked for, so a path cannot lead anywhere else.
    entry = next((entry for entry in checkpoint.files if entry["path"] == path), None)
    if entry is None:
        raise NotFound(f"the checkpoint has no file {path!r}")
    return f"{checkpoint.object_prefix}/{path}", entry
