"""Requests over a connection: tried again where that helps, and their answers read."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from egrpo_client.aio import runtime
from egrpo_client.errors import ClientError, UnexpectedAnswerError, UnreachableError, api_error
from egrpo_client.exchange import Event, EventReader, Request, Retries

# Connecting is quick or fails; an answer may wait for a long poll (60 s) on a busy server.
TIMEOUT = httpx.Timeout(90.0, connect=5.0)
# A stream says something every 15 seconds: one that missed three of them is dead, or kept back by a proxy.
STREAM_TIMEOUT = httpx.Timeout(50.0, connect=5.0)


class AsyncTransport:
    """A connection to the service, and what goes over it."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.retries = retries or Retries()
        headers = {"Authorization": f"Bearer {api_key}", "User-Agent": "egrpo-client"}
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=TIMEOUT, transport=transport)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def opened(self, request: Request) -> AsyncGenerator[httpx.Response, None]:
        """Opens one answer, to be read as it comes. Not tried again: who reads knows where to go on.

        Raises:
            ApiError: the service refused.
            UnreachableError: the connection could not be made, or broke.
        """
        try:
            async with self._http.stream(
                request.method, request.path, **request.options(), timeout=STREAM_TIMEOUT
            ) as response:
                if not response.is_success:
                    raise api_error(response.status_code, await response.aread(), response.headers)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def _json(self, request: Request) -> Any:
        response = await self._send(request)
        try:
            return response.json()
        except ValueError as error:
            kind = response.headers.get("Content-Type", "nothing")
            raise UnexpectedAnswerError(
                f"{self.url} answered with {kind} instead of JSON. Is it the service?"
            ) from error

    async def _bytes(self, request: Request) -> bytes:
        return (await self._send(request)).content

    async def _empty(self, request: Request) -> None:
        await self._send(request)

    async def _rows(self, request: Request, limit: int | None, page_size: int) -> AsyncIterator[Any]:
        """Yields the rows of all pages, or the first `limit` of them."""
        cursor: str | None = None
        remaining = limit
        while remaining is None or remaining > 0:
            size = page_size if remaining is None else min(remaining, page_size)
            params = {**request.params, "limit": size, "cursor": cursor}
            page = await self._json(Request(request.method, request.path, params, request.headers))
            for row in page["data"]:
                yield row
            remaining = None if remaining is None else remaining - len(page["data"])
            cursor = page.get("next_cursor")
            if not page.get("has_more"):
                return

    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        """Yields the events of a stream until the service, or the way to it, ends it."""
        headers = {**request.headers, "Accept": "text/event-stream"}
        async with self.opened(Request(request.method, request.path, request.params, headers)) as response:
            kind = response.headers.get("Content-Type", "nothing")
            if not kind.startswith("text/event-stream"):
                raise UnexpectedAnswerError(f"{self.url} answered with {kind} instead of an event stream.")
            reader = EventReader()
            async for line in response.aiter_lines():
                event = reader.take(line)
                if event is not None:
                    yield event

    async def _send(self, request: Request) -> httpx.Response:
        attempt = 1
        while True:
            try:
                response = await self._http.request(request.method, request.path, **request.options())
                if response.is_success:
                    return response
                error: ClientError = api_error(response.status_code, response.content, response.headers)
            except httpx.TransportError as broken:
                error = self._unreachable(broken)
            pause_s = self.retries.pause_s(request, error, attempt)
            if pause_s is None:
                raise error
            await runtime.sleep(pause_s)
            attempt += 1

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        reason = str(error) or type(error).__name__
        was_refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        message = f"No answer from {self.url} ({reason}). Is the service running?"
        return UnreachableError(message, may_have_arrived=not was_refused)
