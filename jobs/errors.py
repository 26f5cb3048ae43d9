# ruff: noqa: N818  # The names say what happened; "NotFoundError" would say it twice.
"""The error tree of the service. Each error has the HTTP status that it becomes and a stable `code` for programs.

    ServiceError                         500 internal
    ├── SettingsError(ValueError)        a setting is missing or wrong; the process refuses to start
    ├── BadRequest(ValueError)           400 bad_request          the request cannot be read at all
    │   ├── MalformedJSON                400 malformed_json
    │   └── RequestTimeout               408 request_timeout      the body did not arrive in time
    ├── InvalidRequest(ValueError)       422 invalid_request      every problem of it in `errors`
    ├── Unauthorized                     401 unauthorized
    ├── NotFound(LookupError)            404 not_found            also: it belongs to somebody else
    ├── InvalidState                     409 invalid_state        names the status and the allowed actions
    ├── IdempotencyInFlight              409 idempotency_in_flight   retryable
    ├── IdempotencyKeyReused             422 idempotency_key_reused
    ├── PayloadTooLarge                  413 payload_too_large
    ├── UnsupportedMediaType             415 unsupported_media_type
    ├── RangeNotSatisfiable              416 range_not_satisfiable
    ├── Unavailable                      503                      retryable; something that we need is down
    │   ├── DatabaseUnavailable          503 database_unavailable
    │   └── StoreUnavailable             503 store_unavailable
    ├── ObjectMissing(LookupError)       500 object_missing       a row names an object that the store does not have
    ├── ChecksumMismatch(ValueError)     500 checksum_mismatch    bytes are not what their sha256 says
    └── LeaseLost                        409 lease_lost           a worker wrote with an epoch that is over

`api.problems` renders all of them as RFC 9457 problem JSON; nothing else turns an error into an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class FieldError:
    """One problem of a request: where it is, a stable code, a sentence, and what would have been allowed.

    `pointer` is a JSON pointer (RFC 6901) into the body; `parameter` names a query, path or header parameter instead.
    """

    code: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None
    allowed: Any = None

    def as_json(self) -> dict[str, Any]:
        """Returns the members of `errors[]`, leaving out what does not apply."""
        members = {"pointer": self.pointer, "parameter": self.parameter, "code": self.code, "detail": self.detail}
        shown = {name: value for name, value in members.items() if value is not None}
        return shown if self.allowed is None else {**shown, "allowed": self.allowed}


class ServiceError(Exception):
    """Base of every error that the service raises on purpose."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def extra(self) -> dict[str, Any]:
        """Returns the members that this kind of problem adds to the answer."""
        return {}


class SettingsError(ServiceError, ValueError):
    """A setting is missing or wrong; the message names the variable."""

    code = "invalid_settings"
    title = "Invalid settings"


class BadRequest(ServiceError, ValueError):
    """The request cannot be read at all."""

    status = 400
    code = "bad_request"
    title = "Bad request"


class MalformedJSON(BadRequest):
    """The body is not JSON."""

    code = "malformed_json"
    title = "Malformed JSON"


class RequestTimeout(BadRequest):
    """The body did not arrive in time."""

    status = 408
    code = "request_timeout"
    title = "Request timeout"
    retryable = True


class InvalidRequest(ServiceError, ValueError):
    """The request was read and is wrong; carries all of its problems."""

    status = 422
    code = "invalid_request"
    title = "Invalid request"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        places = ", ".join(error.parameter or error.pointer or "the body" for error in errors[:5])
        count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
        super().__init__(f"{count}: {places}{', …' if len(errors) > 5 else ''}")
        self.errors = tuple(errors)

    def extra(self) -> dict[str, Any]:
        return {"errors": [error.as_json() for error in self.errors]}


class Unauthorized(ServiceError):
    """No API key, or one that is not valid."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"


class NotFound(ServiceError, LookupError):
    """There is no such thing in the caller's project."""

    status = 404
    code = "not_found"
    title = "Not found"


class InvalidState(ServiceError):
    """The job's status does not allow this."""

    status = 409
    code = "invalid_state"
    title = "Invalid state"

    def __init__(self, detail: str, *, status: str, allowed_actions: Sequence[str]) -> None:
        super().__init__(detail)
        self.current_status = status
        self.allowed_actions = tuple(allowed_actions)

    def extra(self) -> dict[str, Any]:
        return {"current_status": self.current_status, "allowed_actions": list(self.allowed_actions)}


class IdempotencyInFlight(ServiceError):
    """Another request with the same Idempotency-Key has not finished."""

    status = 409
    code = "idempotency_in_flight"
    title = "Request in flight"
    retryable = True


class IdempotencyKeyReused(ServiceError):
    """The Idempotency-Key was used with another request."""

    status = 422
    code = "idempotency_key_reused"
    title = "Idempotency key reused"


class PayloadTooLarge(ServiceError):
    """The body is over the limit."""

    status = 413
    code = "payload_too_large"
    title = "Payload too large"


class UnsupportedMediaType(ServiceError):
    """The body is not of a type that the endpoint reads."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class RangeNotSatisfiable(ServiceError):
    """The Range header asks for bytes that the file does not have."""

    status = 416
    code = "range_not_satisfiable"
    title = "Range not satisfiable"

    def __init__(self, detail: str, *, size_bytes: int) -> None:
        super().__init__(detail)
        self.size_bytes = size_bytes


class Unavailable(ServiceError):
    """Something that the request needs is down; the same request may succeed later."""

    status = 503
    code = "unavailable"
    title = "Service unavailable"
    retryable = True


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached or did not answer in time."""

    code = "database_unavailable"


class StoreUnavailable(Unavailable):
    """The object store cannot be reached or did not answer in time."""

    code = "store_unavailable"


class ObjectMissing(ServiceError, LookupError):
    """The store does not have the object of that key."""

    code = "object_missing"
    title = "Object missing"


class ChecksumMismatch(ServiceError, ValueError):
    """Bytes are not what their sha256 says."""

    code = "checksum_mismatch"
    title = "Checksum mismatch"


class LeaseLost(ServiceError):
    """The writer's epoch is over: another attempt holds the job, or it has ended. Publish nothing more."""

    status = 409
    code = "lease_lost"
    title = "Lease lost"
