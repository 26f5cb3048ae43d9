# Made from aio/follow.py: python -m contract write
"""Following a job to its end: a stream of its events together with its current state."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing

from egrpo_client.errors import ApiError, JobTimeoutError, UnexpectedAnswerError, UnreachableError
from egrpo_client.sync import runtime
from egrpo_client.sync.operations import Operations
from egrpo_client.watching import Update, Watch

RECONNECTS = 6
BACKOFF_S = 0.5
# After so many streams without a word it asks instead: something on the way keeps streams back.
SILENT_STREAMS = 2
LONGEST_POLL_S = 30.0


def follow(client: Operations, job_id: str, *, after: int = 0, timeout_s: float | None = None) -> Iterator[Update]:
    """Yields an update whenever something happens, until the job has ended and its last event was seen.

    A stream that breaks is opened again behind the last event that was seen, so that none is missed or seen twice.
    Where streams do not come through, and where there is a time to keep to, the events are asked for with long polls.

    Raises:
        ApiError: the service refused, or stayed unable to answer.
        UnreachableError: it stayed out of reach.
        JobTimeoutError: the job has not ended in time.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    watch = Watch(client.get_job(job_id), after)
    yield Update(watch.job, [])
    failures, streams = 0, deadline is None
    while not watch.is_over:
        error: Exception = UnreachableError("The service ends the stream of events without a word.")
        try:
            updates = _streamed(client, job_id, watch) if streams else _polled(client, job_id, watch, deadline)
            with closing(updates):
                for update in updates:
                    failures = 0
                    yield update
            if watch.is_over or not streams:
                continue
        except UnexpectedAnswerError:
            streams = False
            continue
        except (ApiError, UnreachableError) as broken:
            if isinstance(broken, ApiError) and not broken.retryable:
                raise
            error = broken
        failures += 1
        streams = streams and failures <= SILENT_STREAMS
        if failures > RECONNECTS:
            raise error
        runtime.sleep(BACKOFF_S * 2 ** (failures - 1))


def _streamed(client: Operations, job_id: str, watch: Watch) -> Generator[Update, None]:
    for event in client.stream_events(job_id, last_event_id=watch.after):
        update = watch.take_event(event)
        if update is not None:
            yield update
        if watch.is_over:
            return


def _polled(client: Operations, job_id: str, watch: Watch, deadline: float | None) -> Generator[Update, None]:
    wait_s = LONGEST_POLL_S if deadline is None else min(LONGEST_POLL_S, deadline - time.monotonic())
    if wait_s <= 0:
        raise JobTimeoutError(f"Job {job_id} is {watch.job['status']}; the time to wait for it is over.")
    update = watch.take_page(client.list_events(job_id, after=watch.after, wait=wait_s))
    if update is not None:
        yield update
