"""Events and the jobs they are of, for one reader or for many in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.events.schemas import EventList, body_of
from api.jobs.schemas import summary_of
from jobs import events, jobs
from jobs.db import SessionFactory, transaction
from jobs.errors import NotFound
from jobs.queue_places import QueuePlace, queue_places
from jobs.tables import Event, Job


@dataclass(frozen=True)
class Asked:
    """Which events somebody asks for: of which job, behind which number, at most how many."""

    project_id: str
    job_id: str
    after: int
    limit: int


def read_all(sessions: SessionFactory, asked: Sequence[Asked]) -> list[EventList | NotFound]:
    """Returns what is there for each, or that the project has no such job."""
    with transaction(sessions) as session:
        # Job and events of one instant: whoever sees a status that has ended has seen the event that says so, and none
        # that came after it, as when the job is tried again.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        found = jobs.those_of(session, [(each.project_id, each.job_id) for each in asked])
        places = queue_places(session, list(found.values()))
        limit = max(each.limit for each in asked)
        there = [(each.job_id, each.after) for each in asked if (each.project_id, each.job_id) in found]
        rows = events.read_all(session, there, limit=limit + 1)
    answers: list[EventList | NotFound] = []
    for each in asked:
        job = found.get((each.project_id, each.job_id))
        if job is None:
            answers.append(NotFound(f"there is no job {each.job_id!r}"))
        else:
            answers.append(_list_of(each, job, places.get(job.id), rows[each.job_id, each.after]))
    return answers


def _list_of(asked: Asked, job: Job, place: QueuePlace | None, found: Sequence[Event]) -> EventList:
    page = found[: asked.limit]
    return EventList(
        data=[body_of(event) for event in page],
        has_more=len(found) > asked.limit,
        next_cursor=str(page[-1].seq if page else asked.after),
        job_status=job.status,
        job=summary_of(job, place),
    )
