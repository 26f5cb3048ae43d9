"""What a call to the service can end with.

ClientError
├── NotConfiguredError     no URL or key: neither in the environment nor from a local stack
├── UnreachableError       nobody answers at the URL
├── ApiError               the service refused; carries the problem document
├── DigestError            a downloaded file is not the one that the service announced
├── SpecFileError          a spec file cannot be read as YAML or JSON
└── JobEndedError          the job that was waited for failed or was cancelled
"""

import dataclasses
from typing import Any


class ClientError(Exception):
    """The root; the message is a sentence for the user."""


class NotConfiguredError(ClientError):
    """No URL or no API key is known."""


class UnreachableError(ClientError):
    """No connection, or no answer in time."""


class DigestError(ClientError):
    """Downloaded bytes do not have the announced size or sha256."""


class SpecFileError(ClientError):
    """The spec file is missing or is not a mapping."""


class JobEndedError(ClientError):
    """The job did not succeed."""


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

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail") or problem.get("title") or f"The service answered {status}.")
        self.request_id: str | None = problem.get("request_id")
        self.retryable = bool(problem.get("retryable", False))
        self.errors = [_field_error(error) for error in problem.get("errors", [])]
        super().__init__(self.detail)

    def sentences(self) -> list[str]:
        """Returns the problem for a reader: the detail, then every field error."""
        return [self.detail, *(error.sentence() for error in self.errors)]


def _field_error(error: dict[str, Any]) -> FieldError:
    pointer, code = str(error.get("pointer", "")), str(error.get("code", ""))
    return FieldError(pointer, code, str(error.get("detail", code)), error.get("allowed"))


def _listed(allowed: Any) -> str:
    return ", ".join(str(each) for each in allowed) if isinstance(allowed, list) else str(allowed)
