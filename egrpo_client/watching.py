"""What somebody knows who follows a job: its state, and which event was the last."""

import dataclasses
from typing import Any, cast

from egrpo_client.exchange import FINAL_STATUSES, Event
from egrpo_client.models import EventBody, EventList, JobBody


@dataclasses.dataclass(frozen=True)
class Update:
    """The job now, and what has happened since the update before."""

    job: JobBody
    events: list[EventBody]


class Watch:
    """Puts events and states together, from a stream or from pages; each event once, in order."""

    def __init__(self, job: JobBody, after: int) -> None:
        self.job = job
        self.after = after
        self.is_over = False
        self._events: list[EventBody] = []

    def take_event(self, event: Event) -> Update | None:
        """Takes one event of a stream. The state behind each batch of them makes it an update; `done` is the end."""
        if event.name == "done":
            self.is_over = True
            return None
        if event.name == "job":
            return self._update(event.data)
        # A stream that broke within a batch tells it again from its beginning.
        if event.data["seq"] > (self._events[-1]["seq"] if self._events else self.after):
            self._events.append(cast(EventBody, event.data))
        return None

    def take_page(self, page: EventList) -> Update | None:
        """Takes a page of events; None where nothing is new."""
        before = (self.after, self.job["status"], self.job["version"])
        self._events = [event for event in page["data"] if event["seq"] > self.after]
        update = self._update(cast(dict[str, Any], page["job"]))
        self.is_over = self.job["status"] in FINAL_STATUSES and not page["has_more"]
        return update if before != (self.after, self.job["status"], self.job["version"]) else None

    def _update(self, state: dict[str, Any]) -> Update:
        events, self._events = self._events, []
        self.after = events[-1]["seq"] if events else self.after
        self.job = cast(JobBody, {**self.job, **state})  # A stream's state has no spec; the first one's is kept.
        return Update(self.job, events)
