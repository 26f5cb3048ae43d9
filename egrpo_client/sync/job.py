# Made from aio/job.py: python -m contract write
"""One job, as an object: what may be asked of it, and what it tells."""

from collections.abc import Callable, Iterator
from pathlib import Path

from egrpo_client.drafts import Downloaded
from egrpo_client.errors import JobEndedError
from egrpo_client.exchange import FINAL_STATUSES
from egrpo_client.models import EventBody, JobBody, LogLineBody
from egrpo_client.sync.download import download_job
from egrpo_client.sync.follow import LONGEST_POLL_S, follow
from egrpo_client.sync.operations import Operations
from egrpo_client.watching import Update


class Job:
    """A job of the service. `state` is the newest that this object has seen, None before the first request."""

    def __init__(self, client: Operations, job_id: str, state: JobBody | None = None) -> None:
        self.id = job_id
        self.state = state
        self._client = client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.state['status'] if self.state else 'not seen yet'})"

    def refresh(self) -> JobBody:
        """Asks for the job and returns its state."""
        self.state = self._client.get_job(self.id)
        return self.state

    def wait(self, *, timeout_s: float | None = None, check: bool = True) -> JobBody:
        """Returns the job when it has ended.

        Args:
            timeout_s: how long at most; the job goes on afterwards.
            check: whether an end that is no success raises.

        Raises:
            JobEndedError: it failed or was cancelled; the message says why.
            JobTimeoutError: it has not ended in time.
        """
        for update in follow(self._client, self.id, timeout_s=timeout_s):
            self.state = update.job
        assert self.state is not None
        if check and self.state["status"] != "succeeded":
            reason = self.state["status_reason"]
            why = f": {reason['code']}: {reason['message']}" if reason else ""
            raise JobEndedError(f"Job {self.id} {self.state['status']}{why}", self.state)
        return self.state

    def updates(self, *, after: int = 0) -> Iterator[Update]:
        """Yields the state with what has happened since the one before, until the job has ended."""
        for update in follow(self._client, self.id, after=after):
            self.state = update.job
            yield update

    def events(self, *, after: int = 0) -> Iterator[EventBody]:
        """Yields events with `seq > after`, each once and in order, as they come, until the job has ended."""
        for update in self.updates(after=after):
            yield from update.events

    def logs(self, *, follow: bool = False, tail: int | None = None) -> Iterator[LogLineBody]:
        """Yields the lines of its log through all attempts, what the trainer's processes print among them.

        Args:
            follow: whether to wait for more until the job has ended.
            tail: begins with so many of the last lines, 200 at most, instead of the first.
        """
        wait_s, cursor = LONGEST_POLL_S if follow else 0.0, None
        while True:
            first = tail if cursor is None else None
            page = self._client.list_log_lines_page(self.id, cursor=cursor, tail=first, wait=wait_s)
            yield from page["data"]
            cursor = page["next_cursor"]
            if not page["has_more"] and (not follow or page["job_status"] in FINAL_STATUSES):
                return

    def cancel(self) -> JobBody:
        """Asks for its end; the last checkpoint is kept."""
        self.state = self._client.cancel_job(self.id)
        return self.state

    def pause(self) -> JobBody:
        """Asks it to commit a checkpoint and free its worker."""
        self.state = self._client.pause_job(self.id)
        return self.state

    def resume(self) -> JobBody:
        """Queues it again after a pause; it goes on from its last checkpoint."""
        self.state = self._client.resume_job(self.id)
        return self.state

    def retry(self) -> JobBody:
        """Queues it again after it failed or was cancelled."""
        self.state = self._client.retry_job(self.id)
        return self.state

    def download(self, output: Path, told: Callable[[Downloaded], None] = lambda file: None) -> list[Downloaded]:
        """Fetches the adapter, the report and the pictures into a folder, each checked against its sha256."""
        return download_job(self._client, self.id, output, told)
