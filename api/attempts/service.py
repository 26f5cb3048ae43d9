"""Finding attempts."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.attempts.schemas import AttemptBody, body_of
from api.pagination import List, ListQuery
from jobs import attempts, jobs


def page(session: Session, project_id: str, job_id: str, query: ListQuery) -> List[AttemptBody]:
    """Returns a page of attempts, the first one first.

    Raises:
        NotFound: the project has no such job.
    """
    jobs.get(session, project_id, job_id)
    found = attempts.page(session, job_id, limit=query.limit, cursor=query.cursor)
    data = [body_of(attempt) for attempt in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)
