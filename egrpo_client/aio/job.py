"""One job, as an object: what may be asked of it, and what it tells."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from egrpo_client.aio.download import download_job
from egrpo_client.aio.follow import LONGEST_POLL_S, follow
from egrpo_client.aio.operations import AsyncOperations
from egrpo_client.drafts import Downloaded
from egrpo_client.errors import JobEndedError
from egrpo_client.exchange import FINAL_STATUSES
from egrpo_client.models import EventBody, JobBody, LogLineBody
from egrpo_client.watching import Update


class AsyncJob:
    """A job of the service. `state` is the newest that this object has seen, None before the first request."""

    def __init__(self, client: AsyncOperations, job_id: str, state: JobBody | None = None) -> None:
        self.id = job_id
        self.state = state
        self._client = client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.state['status'] if self.state else 'not seen yet'})"

    async def refresh(self) -> JobBody:
        """Asks for the job and returns its state."""
        self.state = await self._client.get_job(self.id)
        return self.state

    async def wait(self, *, timeout_s: float | None = None, check: bool = True) -> JobBody:
        """Returns the job when it has ended.

        Args:
            timeout_s: how long at most; the job goes on afterwards.
            check: whether an end that is no success raises.

        Raises:
            JobEndedError: it failed or was cancelled; the message says why.
            JobTimeoutError: it has not ended in time.
        """
        async for update in follow(self._client, self.id, timeout_s=timeout_s):
            self.state = update.job
        assert self.state is not None
        if check and self.state["status"] != "succeeded":
            reason = self.state["status_reason"]
            why = f": {reason['code']}: {reason['message']}" if reason else ""
            raise JobEndedError(f"Job {self.id} {self.state['status']}{why}", self.state)
        return self.state

    async def updates(self, *, after: int = 0) -> AsyncIterator[Update]:
        """Yields the state with what has happened since the one before, until the job has ended."""
        async for update in follow(self._client, self.id, after=after):
            self.state = update.job
            yield update

    async def events(self, *, after: int = 0) -> AsyncIterator[EventBody]:
        """Yields events with `seq > after`, each once and in order, as they come, until the job has ended."""
        async for update in self.updates(after=after):
            for event in update.events:
                yield event

    async def logs(self, *, follow: bool = False, tail: int | None = None) -> AsyncIterator[LogLineBody]:
        """Yields the lines of its log through all attempts, what the trainer's processes print among them.

        Args:
            follow: whether to wait for more until the job has ended.
            tail: begins with so many of the last lines, 200 at most, instead of the first.
        """
        wait_s, cursor = LONGEST_POLL_S if follow else 0.0, None
        while True:
            first = tail if cursor is None else None
            page = await self._client.list_log_lines_page(self.id, cursor=cursor, tail=first, wait=wait_s)
            for line in page["data"]:
                yield line
            cursor = page["next_cursor"]
            if not page["has_more"] and (not follow or page["job_status"] in FINAL_STATUSES):
                return

    async def cancel(self) -> JobBody:
        """Asks for its end; the last checkpoint is kept."""
        self.state = await self._client.cancel_job(self.id)
        return self.state

    async def pause(self) -> JobBody:
        """Asks it to commit a checkpoint and free its worker."""
        self.state = await self._client.pause_job(self.id)
        return self.state

    async def resume(self) -> JobBody:
        """Queues it again after a pause; it goes on from its last checkpoint."""
        self.state = await self._client.resume_job(self.id)
        return self.state

    async def retry(self) -> JobBody:
        """Queues it again after it failed or was cancelled."""
        self.state = await self._client.retry_job(self.id)
        return self.state

    async def download(self, output: Path, told: Callable[[Downloaded], None] = lambda file: None) -> list[Downloaded]:
        """Fetches the adapter, the report and the pictures into a folder, each checked against its sha256."""
        return await download_job(self._client, self.id, output, told)
