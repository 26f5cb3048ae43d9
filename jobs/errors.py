# ruff: noqa: N818  # The names say what happened; "NotFoundError" would say it twice.
"""The error tree of the service. Each error has the HTTP status that it becomes and a stable `code` for programs.

    ServiceError                         500 internal
    ├── SettingsError(ValueError)        a setting is missing or wrong; the process refuses to start
    ├── BadRequest(ValueError)           400 bad_request          the request cannot be read at all
    │   ├── MalformedJSON                400 malformed_json
    │   └── RequestTimeout               408 request_timeout      the body did not arrive in time
    ├── InvalidRequest(ValueError)       422 invalid_request      every problem of it in `errors`
    ├── Unauthorized                     401 unauthorized
    ├── InsufficientScope                403 insufficient_scope   names the scopes that the API key lacks
    ├── QuotaExceeded                    403 quota_exceeded       names the project's limit, and what is used
    ├── NotFound(LookupError)            404 not_found            also: it belongs to somebody else
    │   └── SecretMissing                404 secret_missing         a job names it, and it was deleted
    ├── InvalidState                     409 invalid_state        names the status and the allowed actions
    ├── LimitReached                 409 limit_reached        the job's own; names the limit, which can be changed
    ├── CheckpointNeeded                 409 checkpoint_needed    it cannot be deleted; `needed_for` says why
    ├── VersionMismatch                  412 version_mismatch     the job has changed; names the version that it has
    ├── InUse                            409 in_use               something that has not ended needs it
    ├── AlreadyExists                    409 already_exists         the project has one of that name
    ├── IdempotencyInFlight              409 idempotency_in_flight   retryable
    ├── IdempotencyKeyReused             422 idempotency_key_reused
    ├── PayloadTooLarge                  413 payload_too_large
    ├── UnsupportedMediaType             415 unsupported_media_type
    ├── RangeNotSatisfiable              416 range_not_satisfiable
    ├── RateLimited                      429 rate_limited         retryable; the headers say when
    ├── Unavailable                      503                      retryable; something that we need is down
    │   ├── DatabaseUnavailable          503 database_unavailable
    │   └── StoreUnavailable             503 store_unavailable
    ├── SealingNotConfigured             503 secrets_not_configured   the operator gave no key
    ├── SealedUnreadable(ValueError)     500 sealed_unreadable      no key opens an encrypted value
    ├── ObjectMissing(LookupError)       500 object_missing       a row names an object that the store does not have
    ├── ChecksumMismatch(ValueError)     500 checksum_mismatch    bytes are not what their sha256 says
    └── LeaseLost                        409 lease_lost           a worker wrote with an epoch that is over

`api.problems` renders all of them as RFC 9457 problem JSON; nothing else turns an error into an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class InsufficientScope(ServiceError):
    """The API key is valid and may not do this."""

    status = 403
    code = "insufficient_scope"
    title = "Insufficient scope"

    def __init__(self, detail: str, *, missing: Sequence[str]) -> None:
        super().__init__(detail)
        self.missing_scopes = tuple(missing)

    def extra(self) -> dict[str, Any]:
        return {"missing_scopes": list(self.missing_scopes)}


class QuotaExceeded(ServiceError):
    """A limit of the project does not allow it. It may again when something was deleted, or the limit was raised."""

    status = 403
    code = "quota_exceeded"
    title = "Quota exceeded"

    def __init__(self, detail: str, *, limit: str, allowed: float, used: float) -> None:
        super().__init__(f"{detail}: {limit} is {allowed}, and {used} are used")
        self.limit, self.allowed, self.used = limit, allowed, used

    def extra(self) -> dict[str, Any]:
        return {"limit": self.limit, "allowed": self.allowed, "used": self.used}


class NotFound(ServiceError, LookupError):
    """There is no such thing in the caller's project."""

    status = 404
    code = "not_found"
    title = "Not found"


class SecretMissing(NotFound):
    """A job names a secret that was deleted since."""

    code = "secret_missing"
    title = "Secret missing"


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


class LimitReached(ServiceError):
    """A limit of the job itself does not allow it to go on, until its owner changes the limit."""

    status = 409
    code = "limit_reached"
    title = "Limit reached"

    def __init__(self, detail: str, *, limit: str) -> None:
        super().__init__(detail)
        self.limit = limit

    def extra(self) -> dict[str, Any]:
        return {"limit": f"limits.{self.limit}"}


class CheckpointNeeded(ServiceError):
    """The checkpoint cannot be deleted: it is pinned, or its job has need of it."""

    status = 409
    code = "checkpoint_needed"
    title = "Checkpoint needed"

    def __init__(self, detail: str, *, needed_for: str) -> None:
        super().__init__(detail)
        self.needed_for = needed_for

    def extra(self) -> dict[str, Any]:
        return {"needed_for": self.needed_for}


class VersionMismatch(ServiceError):
    """The job is not the version that the caller has seen."""

    status = 412
    code = "version_mismatch"
    title = "Version mismatch"

    def __init__(self, detail: str, *, version: int) -> None:
        super().__init__(detail)
        self.current_version = version

    def extra(self) -> dict[str, Any]:
        return {"current_version": self.current_version}


class InUse(ServiceError):
    """Something that has not ended needs what was to be deleted."""

    status = 409
    code = "in_use"
    title = "In use"


class AlreadyExists(ServiceError):
    """The project has one of that name."""

    status = 409
    code = "already_exists"
    title = "Already exists"


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


class RateLimited(ServiceError):
    """Too many requests of a key, or too many wrong keys from an address."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"
    retryable = True

    def __init__(self, detail: str, *, headers: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.headers = dict(headers)


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


class SealingNotConfigured(ServiceError):
    """The service has no key to encrypt values with."""

    status = 503
    code = "secrets_not_configured"
    title = "Secrets not configured"


class SealedUnreadable(ServiceError, ValueError):
    """No key of the settings opens an encrypted value."""

    code = "sealed_unreadable"
    title = "Encrypted value unreadable"


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
