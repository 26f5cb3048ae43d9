"""Attempts of a job, for readers who have found the job in their project. `jobs.leases` writes them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.pages import Page, cut, decode_cursor
from jobs.tables import Attempt


def page(session: Session, job_id: str, *, limit: int, cursor: str | None = None) -> Page[Attempt]:
    """Returns attempts, the first one first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.id).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Attempt.id > decode_cursor(cursor))
    return cut(list(session.scalars(statement)), limit, lambda attempt: attempt.id)
