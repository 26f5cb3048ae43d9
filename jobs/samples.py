"""Images that the trainer drew. Writers hold the job by `leases.guard`; readers have found the job in their project."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.ids import new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.tables import Sample


def put(session: Session, job_id: str, epoch: int, path: str, **columns: Any) -> str:
    """Writes a sample and returns its id. A replayed step replaces what has the same path and keeps the id."""
    values = {"job_id": job_id, "epoch": epoch, "path": path, **columns}
    statement = insert(Sample).values(id=new_id("smp"), **values)
    statement = statement.on_conflict_do_update(index_elements=[Sample.job_id, Sample.path], set_=values)
    return session.scalars(statement.returning(Sample.id)).one()


def page(
    session: Session,
    job_id: str,
    *,
    limit: int,
    cursor: str | None = None,
    step: int | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
    kind: str | None = None,
    prompt_index: int | None = None,
) -> Page[Sample]:
    """Returns samples, oldest first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = select(Sample).where(Sample.job_id == job_id).order_by(Sample.id).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Sample.id > decode_cursor(cursor))
    if step is not None:
        statement = statement.where(Sample.step == step)
    if from_step is not None:
        statement = statement.where(Sample.step >= from_step)
    if to_step is not None:
        statement = statement.where(Sample.step <= to_step)
    if prompt_index is not None:
        statement = statement.where(Sample.prompt_index == prompt_index)
    if kind is not None:
        statement = statement.where(Sample.kind == kind)
    return cut(list(session.scalars(statement)), limit, lambda sample: sample.id)


def get(session: Session, job_id: str, sample_id: str) -> Sample:
    """Returns one sample.

    Raises:
        NotFound: the job has no such sample.
    """
    sample = session.scalar(select(Sample).where(Sample.job_id == job_id, Sample.id == sample_id))
    if sample is None:
        raise NotFound(f"the job has no sample {sample_id!r}")
    return sample
