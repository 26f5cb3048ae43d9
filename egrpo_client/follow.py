"""Following a job to its end: a stream of its events together with its current state."""

import dataclasses
from collections.abc import Iterator

from egrpo_client.client import FINAL_STATUSES, JSON, Client

POLL_WAIT_S = 10.0


@dataclasses.dataclass(frozen=True)
class Update:
    """The job now, and what has happened since the update before."""

    job: JSON
    events: list[JSON]


def follow(client: Client, job_id: str, *, after: int = 0) -> Iterator[Update]:
    """Yields an update whenever something happens, until the job has ended and its last event was seen."""
    job = client.job(job_id)
    yield Update(job, [])
    while True:
        ended = job["status"] in FINAL_STATUSES
        events = client.events(job_id, after=after, wait_s=0 if ended else POLL_WAIT_S)
        if not events and ended:
            return
        after = max([after, *(event["seq"] for event in events)])
        job = client.job(job_id)
        yield Update(job, events)
