"""Reading events, at once or after a wait."""

from __future__ import annotations

import time

from api.events.schemas import EventList, EventsQuery
from api.services import Services
from jobs.states import TERMINAL


async def wait(services: Services, project_id: str, job_id: str, query: EventsQuery) -> EventList:
    """Returns as soon as there is an event, the job has ended, or the time is over. Holds no connection meanwhile.

    Raises:
        NotFound: the project has no such job.
    """
    deadline = time.monotonic() + min(query.wait, services.settings.max_wait_seconds)
    feed = services.event_feed
    with feed.follow(project_id, job_id, query.after) as follower:
        while True:
            found = await feed.read(follower, query.limit)
            remaining_s = deadline - time.monotonic()
            if found.data or found.job_status in TERMINAL or remaining_s <= 0 or services.waker.stopping:
                return found
            await feed.wait(follower, remaining_s)
