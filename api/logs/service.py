"""Reading a job's log, at once or after a wait."""

from __future__ import annotations

import time

from starlette.concurrency import run_in_threadpool

from api.logs.schemas import LogLines, LogsQuery, body_of
from api.services import Services
from jobs import jobs, logs
from jobs.db import transaction
from jobs.errors import FieldError, InvalidRequest
from jobs.pages import decode_cursor, encode_cursor, invalid_cursor
from jobs.states import TERMINAL, Status


async def wait(services: Services, project_id: str, job_id: str, query: LogsQuery) -> LogLines:
    """Returns as soon as there is a line, none can come, or the time is over. Holds no connection meanwhile.

    Raises:
        InvalidRequest: the cursor is not one of ours, or comes with `tail`.
        NotFound: the project has no such job.
    """
    deadline = time.monotonic() + min(query.wait, services.settings.max_wait_seconds)
    with services.waker.watch(logs.topic(job_id)) as woken:
        while True:
            found, ended = await run_in_threadpool(_read, services, project_id, job_id, query)
            remaining_s = deadline - time.monotonic()
            if found.data or ended or remaining_s <= 0 or services.waker.stopping:
                return found
            await services.waker.wait(woken, remaining_s)


def _read(services: Services, project_id: str, job_id: str, query: LogsQuery) -> tuple[LogLines, bool]:
    """Returns lines, and whether no more can come: the job, or the attempt that is asked for, has ended."""
    after = _number_in(query)
    with transaction(services.sessions) as session:
        # Job and lines of one instant: the status of a job that ended comes with its last line.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        job = jobs.get(session, project_id, job_id)
        if query.tail is not None:
            lines = logs.tail(session, job_id, limit=query.tail, attempt=query.attempt, sources=query.source)
        else:
            lines = logs.read(
                session, job_id, after=after, limit=query.limit + 1, attempt=query.attempt, sources=query.source
            )
    has_more = query.tail is None and len(lines) > query.limit
    page = lines[: query.limit] if query.tail is None else lines
    found = LogLines(
        data=[body_of(line) for line in page],
        has_more=has_more,
        next_cursor=encode_cursor(str(page[-1].number if page else after)),
        job_status=Status(job.status),
    )
    return found, job.status in TERMINAL or (query.attempt is not None and query.attempt < job.attempt)


def _number_in(query: LogsQuery) -> int:
    if query.cursor is None:
        return 0
    if query.tail is not None:
        detail = "the last lines are asked for without a cursor; go on from there with the cursor that comes with them"
        raise InvalidRequest([FieldError("not_allowed", detail, parameter="tail")])
    number = decode_cursor(query.cursor)
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise invalid_cursor()
    return int(number)
