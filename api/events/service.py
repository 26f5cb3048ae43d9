"""Reading events, at once or after a wait."""

from __future__ import annotations

import time

from starlette.concurrency import run_in_threadpool

from api.events.schemas import EventList, EventsQuery, body_of
from api.jobs.schemas import summary_of
from api.services import Services
from jobs import events, jobs, workers
from jobs.db import transaction
from jobs.states import TERMINAL


def read(services: Services, project_id: str, job_id: str, query: EventsQuery) -> EventList:
    """Returns the events that are there.

    Raises:
        NotFound: the project has no such job.
    """
    with transaction(services.sessions) as session:
        # The job first: whoever sees a status that has ended has also seen the event that says so.
        job = jobs.get(session, project_id, job_id)
        place = workers.queue_places(session, [job]).get(job.id)
        found = events.read(session, job_id, after=query.after, limit=query.limit + 1)
    page = found[: query.limit]
    return EventList(
        data=[body_of(event) for event in page],
        has_more=len(found) > query.limit,
        next_cursor=str(page[-1].seq if page else query.after),
        job_status=job.status,
        job=summary_of(job, place),
    )


async def wait(services: Services, project_id: str, job_id: str, query: EventsQuery) -> EventList:
    """Returns as soon as there is an event, the job has ended, or the time is over. Holds no connection meanwhile.

    Raises:
        NotFound: the project has no such job.
    """
    deadline = time.monotonic() + min(query.wait, services.settings.max_wait_seconds)
    with services.waker.watch(job_id) as woken:
        while True:
            found = await run_in_threadpool(read, services, project_id, job_id, query)
            remaining_s = deadline - time.monotonic()
            if found.data or found.job_status in TERMINAL or remaining_s <= 0 or services.waker.stopping:
                return found
            await services.waker.wait(woken, remaining_s)
