"""What both clients say and hear, without a connection: requests, server-sent events, and when to try again."""

import dataclasses
import json
import random
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from egrpo_client.errors import ApiError, ClientError, UnreachableError

JSON = Mapping[str, Any]
FINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})
# RFC 9110, 9.2.2: the second of two such requests changes nothing.
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Operation(NamedTuple):
    """An operation of the OpenAPI document; `resource` is its tag."""

    operation_id: str
    method: str
    path: str
    resource: str


@dataclasses.dataclass(frozen=True)
class Request:
    """One call: what goes where. Parameters and headers that are None are left out."""

    method: str
    path: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    headers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent twice: by its method, or by the key under which the service knows it again."""
        return self.method in _IDEMPOTENT or "Idempotency-Key" in self.headers

    def options(self) -> dict[str, Any]:
        """Returns what httpx takes beside method and path."""
        headers = {name: str(value) for name, value in self.headers.items() if value is not None}
        params = dict(pair for name, value in self.params.items() for pair in _written(name, value))
        if self.body is None:
            return {"params": params, "headers": headers}
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body, ensure_ascii=False).encode()
        return {"params": params, "headers": {"Content-Type": self.content_type, **headers}, "content": content}


def new_key() -> str:
    """Returns an Idempotency-Key that nobody has used."""
    return uuid.uuid4().hex


def quoted(segment: str) -> str:
    """Returns a parameter as it stands in a path, where it is one segment."""
    return quote(segment, safe="")


def quoted_path(path: str) -> str:
    """Returns the path of a file as it stands in a path: with its slashes."""
    return quote(path)


def _written(name: str, value: Any) -> list[tuple[str, Any]]:
    """Returns a parameter as a URL has it; an object in OpenAPI's style `deepObject`: `metadata[ticket]=ML-88`."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(f"{name}[{key}]", each) for key, each in value.items()]
    return [(name, value.isoformat() if isinstance(value, datetime) else value)]


@dataclasses.dataclass(frozen=True)
class Retries:
    """When a request is sent again, and after how long.

    Sent again is what found no connection, and what may be repeated and got no answer or a problem that calls itself
    `retryable`. `Retry-After` is kept to; a service that asks for more than `longest_wait_s` ends in its error.
    """

    attempts: int = 5
    backoff_s: float = 0.25
    longest_wait_s: float = 60.0

    def pause_s(self, request: Request, error: ClientError, attempt: int) -> float | None:
        """Returns the pause before the next attempt, None where there is none. The first attempt is number 1."""
        if attempt >= self.attempts:
            return None
        grown: float = self.backoff_s * 2 ** (attempt - 1) * (1 + random.random())
        if isinstance(error, UnreachableError):
            return grown if request.is_repeatable or not error.may_have_arrived else None
        # Whoever is told that it is too much at once has had no effect.
        if not isinstance(error, ApiError) or not (request.is_repeatable or error.status == 429):
            return None
        if not error.retryable:
            return None
        if error.retry_after_s is None:
            return grown
        return error.retry_after_s if error.retry_after_s <= self.longest_wait_s else None


class Event(NamedTuple):
    """A server-sent event: its name, its data, and its id where it has one."""

    name: str
    data: dict[str, Any]
    id: str | None


class EventReader:
    """Puts the lines of an event stream together (WHATWG HTML, 9.2.6); an event without its empty line is dropped."""

    def __init__(self) -> None:
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None

    def take(self, line: str) -> Event | None:
        """Takes one line and returns the event that it ends, if it ends one."""
        if line:
            self._take_field(*line.partition(":")[::2])
            return None
        event = Event(self._name or "message", json.loads("\n".join(self._data)), self._id) if self._data else None
        self._name, self._data, self._id = "", [], None
        return event

    def _take_field(self, field: str, value: str) -> None:
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id":
            self._id = value
