"""Every error as RFC 9457 problem JSON, and the request id that names it. Nothing else writes an error answer."""

from __future__ import annotations

import http
import logging
import re
import time
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.security_headers import add_security_headers
from jobs.errors import (
    FieldError,
    InsufficientScope,
    InvalidRequest,
    RangeNotSatisfiable,
    RateLimited,
    ServiceError,
    Unauthorized,
    Unavailable,
)
from jobs.ids import new_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_API_KEY = re.compile(r"ega_[A-Za-z0-9]{16,}")
_RETRY_AFTER_S = 2


class ProblemError(BaseModel):
    """One problem of a request."""

    pointer: str | None = Field(default=None, description="JSON pointer (RFC 6901) into the body")
    parameter: str | None = Field(default=None, description="the query, path or header parameter instead")
    code: str = Field(examples=["unknown_reward"])
    detail: str
    allowed: Any = Field(default=None, description="what would have been allowed")


class Problem(BaseModel):
    """An error (RFC 9457). Programs look at `code` and `retryable`, people at `detail`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    code: str = Field(examples=["invalid_request"])
    detail: str
    instance: str
    request_id: str
    retryable: bool = Field(description="whether the same request may succeed later")
    errors: list[ProblemError] | None = None


def request_id(scope: Scope) -> str:
    """Returns the id of the request, the caller's own if it sent a usable one."""
    return str(scope.get("state", {}).get("request_id", "unknown"))


def problem(
    scope: Scope,
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    retryable: bool = False,
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> JSONResponse:
    """Returns the answer that tells one problem."""
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "instance": scope.get("path", ""),
        "request_id": request_id(scope),
        "retryable": retryable,
        **extra,
    }
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes the application answer every error as a problem."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _request_validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_middleware(RequestIdMiddleware)


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    if error.status >= 500:
        # What waited in vain has no cause but the load, to which a stack for each would add.
        shown = None if isinstance(error, Unavailable) and error.__cause__ is None else error
        id_ = request_id(request.scope)
        log.error("event=%s request_id=%s detail=%r", error.code, id_, error.detail, exc_info=shown)
    return problem(
        request.scope,
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.detail if error.status != 500 else "something went wrong on our side",
        retryable=error.retryable,
        headers=_headers(error),
        **error.extra(),
    )


def _headers(error: ServiceError) -> dict[str, str]:
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="egrpo"'
    if isinstance(error, InsufficientScope):  # RFC 6750, 3.1
        scopes = " ".join(error.missing_scopes)
        headers["WWW-Authenticate"] = f'Bearer realm="egrpo", error="insufficient_scope", scope="{scopes}"'
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    if error.retryable:
        headers["Retry-After"] = str(_RETRY_AFTER_S if isinstance(error, Unavailable) else 1)
    if isinstance(error, RateLimited):
        headers.update(error.headers)
    return headers


async def _request_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Query, path and header parameters; bodies are parsed by `jobs.spec`."""
    assert isinstance(error, RequestValidationError)
    found = [_parameter_error(item) for item in error.errors()]
    return await _service_error(request, InvalidRequest(found))


def _parameter_error(item: dict[str, Any]) -> FieldError:
    name = _parameter_name(item["loc"])
    context = item.get("ctx", {})
    allowed = next((context[key] for key in ("expected", "le", "ge", "max_length") if key in context), None)
    code = "unknown_parameter" if item["type"] == "extra_forbidden" else "invalid_parameter"
    detail = "there is no such parameter" if item["type"] == "extra_forbidden" else item["msg"]
    return FieldError(code, detail, parameter=name, allowed=allowed)


def _parameter_name(location: tuple[int | str, ...]) -> str:
    """Returns the name as it stands in a URL, of a list with the place of the value, of an object with its key."""
    # Without a second part, all parameters together are wrong; pydantic's last part "[key]" says that the key is.
    first, *rest = [part for part in location if part != "[key]"][1:] or location[:1]
    return str(first) + "".join(f".{part}" if isinstance(part, int) else f"[{part}]" for part in rest)


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: no such route, a method that the route does not have."""
    assert isinstance(error, HTTPException)
    phrase = http.HTTPStatus(error.status_code).phrase
    return problem(
        request.scope,
        status=error.status_code,
        code=phrase.lower().replace(" ", "_").replace("-", "_"),
        title=phrase,
        detail=f"{request.method} {request.url.path}: {phrase.lower()}",
        headers=dict(error.headers) if error.headers else None,
    )


def _internal_error(scope: Scope, error: Exception) -> JSONResponse:
    path = _API_KEY.sub("ega_…", quote(scope["path"]))
    log.error("event=internal_error path=%s request_id=%s", path, request_id(scope), exc_info=error)
    detail = "something went wrong on our side; name the request_id when you report it"
    return problem(scope, status=500, code="internal", title="Internal error", detail=detail)


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    """Logs one line for a request; the query string stays out of it, and so does an API key in the path."""
    log.info(
        "event=request method=%s path=%s status=%d ms=%.0f request_id=%s",
        scope["method"],
        _API_KEY.sub("ega_…", quote(scope["path"])),
        status,
        1000 * seconds,
        request_id(scope),
    )


def _refused_url(scope: Scope) -> JSONResponse | None:
    """Returns the answer to a URL with NUL in it, which PostgreSQL cannot compare with anything."""
    if "\0" in scope["path"]:
        return problem(scope, status=404, code="not_found", title="Not found", detail="there is no such path")
    if b"%00" in scope["query_string"]:
        detail = "NUL characters are not allowed in a URL"
        return problem(scope, status=400, code="bad_request", title="Bad request", detail=detail)
    return None


class RequestIdMiddleware:
    """Gives every request an id and every answer X-Request-Id; turns what nobody caught into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        own = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        id_ = own if _REQUEST_ID.fullmatch(own) else new_id("req")
        scope.setdefault("state", {})["request_id"] = id_
        started = False
        began = time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _log_request(scope, message["status"], time.monotonic() - began)
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = id_
                headers.update(scope["state"].get("rate_limit_headers", {}))
                add_security_headers(scope, headers)
            await send(message)

        try:
            if (refused := _refused_url(scope)) is not None:
                await refused(scope, receive, send_with_id)
                return
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if started:  # The status is sent: all that is left is to break the connection.
                raise
            await _internal_error(scope, error)(scope, receive, send_with_id)
