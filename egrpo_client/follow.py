"""Following a job to its end: a stream of its events together with its current state."""

import dataclasses
import time
from collections.abc import Iterator

from egrpo_client.client import JSON, Client
from egrpo_client.errors import ApiError, UnreachableError

RECONNECTS = 6
BACKOFF_S = 0.5


@dataclasses.dataclass(frozen=True)
class Update:
    """The job now, and what has happened since the update before."""

    job: JSON
    events: list[JSON]


def follow(client: Client, job_id: str, *, after: int = 0) -> Iterator[Update]:
    """Yields an update whenever something happens, until the job has ended and its last event was seen.

    A stream that breaks is opened again behind the last event that was seen, so that none is missed or seen twice.

    Raises:
        ApiError: the service refused, or stayed unable to answer.
        UnreachableError: it stayed out of reach.
    """
    job = client.job(job_id)
    yield Update(job, [])
    failures = 0
    while True:
        events: list[JSON] = []
        try:
            for name, data in client.stream(job_id, after=after):
                failures = 0
                if name == "done":
                    return
                if name != "job":
                    events.append(data)
                    continue
                after = events[-1]["seq"] if events else after
                job = {**job, **data}
                yield Update(job, events)
                events = []
        except (ApiError, UnreachableError) as error:
            failures += 1
            if failures > RECONNECTS or not (isinstance(error, UnreachableError) or error.retryable):
                raise
            time.sleep(BACKOFF_S * 2 ** (failures - 1))
