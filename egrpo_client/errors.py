"""What a call to the service can end with.

ClientError
├── NotConfiguredError     no URL or key: neither in the environment nor from a local stack
├── UnreachableError       nobody answers at the URL
├── UnexpectedAnswerError  somebody answers, and it is not the service: a proxy, a login page
├── ApiError               the service refused; carries the problem document
│   ├── InvalidRequestError     400, 413, 415, 422: `errors` names every field
│   ├── AuthenticationError     401: no key, or one that is not valid
│   ├── PermissionDeniedError   403: the key may not do this
│   ├── NotFoundError           404: not there, or somebody else's
│   ├── ConflictError           409, 412: the state does not allow it
│   ├── RateLimitedError        429: too much at once; `retry_after_s` says when
│   └── ServiceError            500 and above
├── DigestError            a downloaded file is not the one that the service announced
├── WebhookError           a webhook does not come from the service, or is too old
├── SpecFileError          a spec file cannot be read as YAML or JSON
├── JobTimeoutError        the job has not ended within the time given
└── JobEndedError          the job that was waited for failed or was cancelled
"""

import dataclasses
import email.utils
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


class ClientError(Exception):
    """The root; the message is a sentence for the user."""


class NotConfiguredError(ClientError):
    """No URL or no API key is known."""


class UnreachableError(ClientError):
    """No connection, or no answer in time. `may_have_arrived`: a connection was there, the request may have had it."""

    def __init__(self, message: str, *, may_have_arrived: bool = True) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


class UnexpectedAnswerError(ClientError):
    """The answer is not what the service sends."""


class DigestError(ClientError):
    """Downloaded bytes do not have the announced size or sha256."""


class WebhookError(ClientError):
    """No signature of a webhook is right, or its time is not now."""


class SpecFileError(ClientError):
    """The spec file is missing or is not a mapping."""


class JobTimeoutError(ClientError, TimeoutError):
    """The job goes on; the waiting for it is over."""


class JobEndedError(ClientError):
    """The job did not succeed; `job` is how it ended."""

    def __init__(self, message: str, job: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.job = job or {}


@dataclasses.dataclass(frozen=True)
class FieldError:
    """One error of a request body: where, which, and what would be allowed."""

    pointer: str
    code: str
    detail: str
    allowed: Any = None

    def sentence(self) -> str:
        """Returns the error in one line, led by its JSON pointer."""
        allowed = f" (allowed: {_listed(self.allowed)})" if self.allowed is not None else ""
        return f"{self.pointer or '/'}: {self.detail}{allowed}"


class ApiError(ClientError):
    """A problem document (RFC 9457) of the service."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.retry_after_s = retry_after_s
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail") or problem.get("title") or f"The service answered {status}.")
        self.request_id: str | None = problem.get("request_id")
        self.retryable = bool(problem.get("retryable", False))
        self.errors = [_field_error(error) for error in problem.get("errors") or []]
        super().__init__(self.detail)

    def sentences(self) -> list[str]:
        """Returns the problem for a reader: the detail, then every field error."""
        return [self.detail, *(error.sentence() for error in self.errors)]


class InvalidRequestError(ApiError, ValueError):
    """The request is wrong; all of `errors` at once."""


class AuthenticationError(ApiError):
    """No API key, or one that is not valid."""


class PermissionDeniedError(ApiError):
    """The key's scopes do not cover it."""


class NotFoundError(ApiError, LookupError):
    """There is no such thing in the project."""


class ConflictError(ApiError):
    """The state does not allow it, or it has changed since it was seen."""


class RateLimitedError(ApiError):
    """Too many requests, or a quota is used up."""


class ServiceError(ApiError):
    """Something went wrong on the service's side."""


_KINDS: dict[int, type[ApiError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
}


def api_error(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """Returns the error of an answer that is no success; a proxy's page has no problem document."""
    try:
        read = json.loads(body)
    except ValueError:
        read = {}
    problem = read if isinstance(read, dict) else {}
    if status in (429, 502, 503, 504):
        problem.setdefault("retryable", True)
    kind = ServiceError if status >= 500 else _KINDS.get(status, ApiError)
    return kind(status, problem, retry_after_s(headers.get("Retry-After")))


def retry_after_s(header: str | None) -> float | None:
    """Returns the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3), or None if it is neither."""
    said = (header or "").strip()
    if said.isascii() and said.isdecimal():
        return float(said)
    try:
        moment = email.utils.parsedate_to_datetime(said)
        return max((moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return None


def _field_error(error: dict[str, Any]) -> FieldError:
    pointer, code = str(error.get("pointer", "")), str(error.get("code", ""))
    return FieldError(pointer, code, str(error.get("detail", code)), error.get("allowed"))


def _listed(allowed: Any) -> str:
    return ", ".join(str(each) for each in allowed) if isinstance(allowed, list) else str(allowed)
