"""What endpoints ask for: who calls, a session that commits before the answer leaves, the body as it came.

Authentication has a short transaction of its own, so that no connection is held while a body trickles in, a long-poll
waits or a download runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.services import Services
from jobs import api_keys
from jobs.api_keys import Caller
from jobs.db import transaction
from jobs.errors import MalformedJSON, PayloadTooLarge, RequestTimeout, Unauthorized, UnsupportedMediaType

_BEARER = HTTPBearer(auto_error=False, scheme_name="APIKey", description="`Authorization: Bearer ega_…`")


def services_of(request: Request) -> Services:
    """Returns the application's services."""
    services: Services = request.app.state.services
    return services


TheServices = Annotated[Services, Depends(services_of)]


def caller_of(
    services: TheServices, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Caller:
    """Returns who calls.

    Raises:
        Unauthorized: without a key, or with one that is not valid.
    """
    if credentials is None:
        raise Unauthorized("send an API key as `Authorization: Bearer ega_…`")
    if not api_keys.is_well_formed(credentials.credentials):
        raise Unauthorized("the API key is not valid")
    with transaction(services.sessions) as session:
        return api_keys.verify(session, credentials.credentials)


TheCaller = Annotated[Caller, Depends(caller_of)]


def session_of(services: TheServices) -> Iterator[Session]:
    """Yields the session of the request; its transaction ends with the endpoint."""
    with transaction(services.sessions) as session:
        yield session


# Scope "function": the commit comes before the answer, so that no 201 is sent for a row that was not written.
TheSession = Annotated[Session, Depends(session_of, scope="function")]


async def raw_body(request: Request, services: TheServices, _caller: TheCaller) -> bytes:
    """Returns the body, read no further than the limit and no longer than the time for it.

    Raises:
        UnsupportedMediaType: it is not declared as JSON.
        PayloadTooLarge: it is over the limit.
        RequestTimeout: it did not arrive in time.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType("send the body as application/json")
    limit = services.settings.max_body_bytes
    try:
        async with asyncio.timeout(services.settings.body_timeout_seconds):
            return await _read_up_to(request, limit)
    except TimeoutError as error:
        raise RequestTimeout(f"no whole body after {services.settings.body_timeout_seconds:g} s") from error


async def _read_up_to(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if declared.isdecimal() and int(declared) <= limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    raise PayloadTooLarge(f"a body may have at most {limit} bytes")


RawBody = Annotated[bytes, Depends(raw_body)]


def parse_json(body: bytes) -> Any:
    """Returns the JSON document; NaN and infinities are not JSON.

    Raises:
        MalformedJSON: it is not JSON.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise MalformedJSON("the body is nested too deeply") from error
    except ValueError as error:
        raise MalformedJSON(f"the body is not JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="The same key and body give the stored answer again, with `Idempotency-Replayed: true`.",
    ),
]
