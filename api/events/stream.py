"""Events as server-sent events: what is there, then what comes, until the job has ended.

The table is the truth and NOTIFY only wakes: a stream reads exactly what the list reads, from the `seq` that its client
saw last. `api.events.feed` reads for all streams of the process.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from pydantic import BaseModel

from api.events.schemas import EventBody, EventList
from api.services import Services
from jobs.pages import MAX_LIMIT
from jobs.states import TERMINAL

PING_S = 15.0
# A stream is authorised once, when it begins: it ends now and then, and its client comes again with its key.
LONGEST_S = 900.0
RETRY_MS = 1_000


async def first_page(services: Services, project_id: str, job_id: str, after: int) -> EventList:
    """Returns what is there already, before the answer begins: afterwards it is too late for a 404.

    Raises:
        NotFound: the project has no such job.
    """
    with services.event_feed.follow(project_id, job_id, after) as follower:
        return await services.event_feed.read(follower, MAX_LIMIT)


async def messages(services: Services, project_id: str, job_id: str, page: EventList) -> AsyncIterator[str]:
    """Yields the page and all that follows, as the text of server-sent events."""
    ends_at = time.monotonic() + LONGEST_S
    feed = services.event_feed
    yield f"retry: {RETRY_MS}\n\n{_batch(page)}"
    said_at = time.monotonic()
    with feed.follow(project_id, job_id, int(page.next_cursor)) as follower:
        follower.woken.set()  # Something may have come since the first page.
        while not services.waker.stopping and time.monotonic() < ends_at:
            if page.job.status in TERMINAL and not page.has_more:
                yield _message("done", page.job)
                return
            if page.has_more or await feed.wait(follower, said_at + PING_S - time.monotonic()):
                page = await feed.read(follower, MAX_LIMIT)
                text = _batch(page) if page.data else ""
            else:
                text = ": ping\n\n"
            if text:
                yield text
                said_at = time.monotonic()


def _batch(page: EventList) -> str:
    """Returns events, and behind them the job, without an id: it is a state, not one more event of the log."""
    return "".join(_event(event) for event in page.data) + _message("job", page.job)


def _event(event: EventBody) -> str:
    return f"id: {event.seq}\n{_message(event.type, event)}"


def _message(name: str, data: BaseModel) -> str:
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"
