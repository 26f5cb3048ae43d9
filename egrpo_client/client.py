"""The Python SDK: one method per thing that the service does, JSON objects in and out.

with Client.from_environment() as client:
    job = client.submit({"base_model": "tiny-flux-shapes", …})
    for update in follow(client, job["id"]): …
    download_job(client, job["id"], Path("out"))
"""

import json
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from egrpo_client.connection import Connection, find_connection
from egrpo_client.errors import ApiError, UnreachableError

JSON = dict[str, Any]
FINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})
# Connecting is quick or fails; an answer may wait for a long poll (30 s) on a busy server.
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
ATTEMPTS = 5
BACKOFF_S = 0.25


class Client:
    """A connection to the service; safe to use from one thread at a time."""

    def __init__(self, url: str, api_key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {api_key}", "User-Agent": "egrpo-client"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, transport=transport)

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """Returns a client of the connection."""
        return cls(connection.url, connection.api_key)

    @classmethod
    def from_environment(cls) -> Self:
        """Returns a client of the service that this environment, or the local stack, names."""
        return cls.of(find_connection())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> JSON:
        """Creates a job and returns it; the same idempotency key creates it once."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._json("POST", "/v1/jobs", json=dict(spec), headers=headers)

    def job(self, job_id: str) -> JSON:
        """Returns a job."""
        return self._json("GET", f"/v1/jobs/{job_id}")

    def jobs(self, *, limit: int | None = None, status: str | None = None) -> Iterator[JSON]:
        """Yields jobs, newest first, page by page; `limit` of them, or all."""
        return self._listed("/v1/jobs", limit, {"status": status} if status else {})

    def cancel(self, job_id: str) -> JSON:
        """Asks for the end of a job and returns it."""
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def pause(self, job_id: str) -> JSON:
        """Asks a job to commit a checkpoint and free its worker, and returns it."""
        return self._json("POST", f"/v1/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> JSON:
        """Queues a paused job again and returns it."""
        return self._json("POST", f"/v1/jobs/{job_id}/resume")

    def events(self, job_id: str, *, after: int = 0, wait_s: float = 0, limit: int = 200) -> list[JSON]:
        """Returns events with `seq > after`, waiting up to `wait_s` seconds for the first."""
        return list(self.events_page(job_id, after=after, wait_s=wait_s, limit=limit)["data"])

    def events_page(self, job_id: str, *, after: int = 0, wait_s: float = 0, limit: int = 200) -> JSON:
        """Returns the events as `data`, with whether there are more, and the `job` as it was when they were read."""
        params = {"after": after, "wait": int(wait_s), "limit": limit}
        return self._json("GET", f"/v1/jobs/{job_id}/events", params=params)

    def stream(self, job_id: str, *, after: int = 0) -> Iterator[tuple[str, JSON]]:
        """Yields (name, data) of what happens to a job, as it happens: its events, and `job` with its state after each
        batch. Ends after `done`, and sooner when the service ends the stream: open it again behind the last `seq`.

        Raises:
            ApiError: the service refused.
            UnreachableError: the connection could not be made, or broke.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            with self._http.stream("GET", f"/v1/jobs/{job_id}/events/stream", headers=headers) as response:
                if not response.is_success:
                    response.read()
                    raise _problem(response)
                yield from _messages(response.iter_lines())
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def metrics(self, job_id: str, *, names: list[str] | None = None) -> Iterator[JSON]:
        """Yields metric rows, all or those of the names."""
        return self._listed(f"/v1/jobs/{job_id}/metrics", None, {"names": ",".join(names)} if names else {})

    def samples(self, job_id: str) -> Iterator[JSON]:
        """Yields sample images' rows."""
        return self._listed(f"/v1/jobs/{job_id}/samples", None, {})

    def checkpoints(self, job_id: str) -> Iterator[JSON]:
        """Yields checkpoints of both kinds, with the sha256 of each file."""
        return self._listed(f"/v1/jobs/{job_id}/checkpoints", None, {})

    def attempts(self, job_id: str) -> Iterator[JSON]:
        """Yields the attempts of a job, the first one first."""
        return self._listed(f"/v1/jobs/{job_id}/attempts", None, {})

    def models(self) -> list[JSON]:
        """Returns the base models that a job may name."""
        return list(self._listed("/v1/models", None, {}))

    def rewards(self) -> list[JSON]:
        """Returns the rewards that a job may name."""
        return list(self._listed("/v1/rewards", None, {}))

    def open_file(self, path: str) -> Iterator[bytes]:
        """Yields the bytes of a download; `path` is that of an endpoint.

        Raises:
            ApiError: the service refused.
            UnreachableError: the connection broke.
        """
        try:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise _problem(response)
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _listed(self, path: str, limit: int | None, params: dict[str, Any]) -> Iterator[JSON]:
        cursor: str | None = None
        remaining = limit
        while remaining is None or remaining > 0:
            page_size = 200 if remaining is None else min(remaining, 200)
            query = {**params, "limit": page_size, **({"cursor": cursor} if cursor else {})}
            page = self._json("GET", path, params=query)
            yield from page["data"]
            remaining = None if remaining is None else remaining - len(page["data"])
            cursor = page.get("next_cursor")
            if not page.get("has_more"):
                return

    def _json(self, method: str, path: str, **options: Any) -> JSON:
        # A POST is repeated only under a key, by which the service knows it again; or if it found no connection.
        is_repeatable = method == "GET" or "Idempotency-Key" in options.get("headers", {})
        for attempt in range(ATTEMPTS):
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                if attempt + 1 == ATTEMPTS or not (is_repeatable or isinstance(error, httpx.ConnectError)):
                    raise self._unreachable(error) from error
                _pause(attempt, None)
                continue
            if response.is_success:
                return dict(response.json())
            problem = _problem(response)
            if attempt + 1 == ATTEMPTS or not (problem.retryable and is_repeatable):
                raise problem
            _pause(attempt, response.headers.get("Retry-After"))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        reason = str(error) or type(error).__name__
        return UnreachableError(f"No answer from {self.url} ({reason}). Is the service running?")


def _messages(lines: Iterator[str]) -> Iterator[tuple[str, JSON]]:
    """Yields (name, data) of server-sent events: each of ours has one line of data, and a name."""
    name = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def _problem(response: httpx.Response) -> ApiError:
    try:
        body = response.json()
    except ValueError:
        body = {}
    problem = body if isinstance(body, dict) else {}
    if response.status_code in (429, 502, 503, 504):
        problem.setdefault("retryable", True)
    return ApiError(response.status_code, problem)


def _pause(attempt: int, retry_after: str | None) -> None:
    if retry_after is not None and retry_after.isdigit():
        time.sleep(min(int(retry_after), 30))
    else:
        time.sleep(BACKOFF_S * 2**attempt * (1 + random.random()))
