"""The client: every operation of the service as a method, and jobs as objects."""

from types import TracebackType
from typing import Self

from egrpo_client.aio.job import AsyncJob
from egrpo_client.aio.operations import AsyncOperations
from egrpo_client.connection import Connection, find_connection
from egrpo_client.exchange import Retries
from egrpo_client.models import JobSpec


class AsyncClient(AsyncOperations):
    """A connection to the service; close it, or use it in a `with` block."""

    @classmethod
    def of(cls, connection: Connection, *, retries: Retries | None = None) -> Self:
        """Returns a client of the connection."""
        return cls(connection.url, connection.api_key, retries=retries)

    @classmethod
    def from_environment(cls, *, retries: Retries | None = None) -> Self:
        """Returns a client of the service that this environment, or the local stack, names."""
        return cls.of(find_connection(), retries=retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> AsyncJob:
        """Creates a job; the same idempotency key creates it once."""
        state = await self.create_job(spec, idempotency_key=idempotency_key)
        return AsyncJob(self, state["id"], state)

    def job(self, job_id: str) -> AsyncJob:
        """Returns the job of that id; no request is made."""
        return AsyncJob(self, job_id)
