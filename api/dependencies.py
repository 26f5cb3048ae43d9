"""What endpoints ask for: who calls, a session that commits before the answer leaves, the body as it came.

Authentication has a short transaction of its own, so that no connection is held while a body trickles in, a long-poll
waits or a download runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api import scopes
from api.audit import actor_of
from api.services import Services
from jobs import api_keys, audit
from jobs.api_keys import Caller
from jobs.audit import Actor
from jobs.db import translated_errors
from jobs.errors import (
    DatabaseUnavailable,
    MalformedJSON,
    PayloadTooLarge,
    RequestTimeout,
    Unauthorized,
    UnsupportedMediaType,
)
from jobs.scopes import require

_SLOT_TIMEOUT_S = 5.0
_BEARER = HTTPBearer(auto_error=False, scheme_name="APIKey", description="`Authorization: Bearer ega_…`")


async def services_of(request: Request) -> Services:
    """Returns the application's services; `async`, so that it needs no thread."""
    services: Services = request.app.state.services
    return services


TheServices = Annotated[Services, Depends(services_of)]


def caller_of(
    request: Request,
    services: TheServices,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> Caller:
    """Returns who calls, if the key may call this route.

    Raises:
        Unauthorized: without a key, or with one that is not valid.
        RateLimited: too many requests of the key, or too many wrong keys from the address.
        InsufficientScope: the key lacks the scope that the route needs.
    """
    if credentials is None:
        raise Unauthorized("send an API key as `Authorization: Bearer ega_…`")
    caller = _verified(services, credentials.credentials, request.client.host if request.client else "unknown")
    request.state.rate_limit_headers = services.rate_limits.take(caller.key_id)
    require(caller.scopes, scopes.needed(request.method, request.scope["route"].path))
    return caller


def _verified(services: Services, key: str, address: str) -> Caller:
    services.rate_limits.check_address(address, key)
    try:
        if not api_keys.is_well_formed(key):  # A typo is known as one before anything is connected to.
            raise Unauthorized("the API key is not valid")
        with translated_errors(), services.readings() as session:
            caller = api_keys.verify(session, key)
    except Unauthorized:
        services.rate_limits.count_failure(address)
        raise
    services.rate_limits.note_right(key)
    return caller


TheCaller = Annotated[Caller, Depends(caller_of)]


async def session_of(request: Request, services: TheServices, caller: TheCaller) -> AsyncIterator[Session]:
    """Yields the session of the request; its transaction ends with the endpoint, and with it the audit event.

    Behind the endpoint the framework needs a thread once more while the session still has its connection. So threads
    that wait for a connection must never be all there are: some connections are for no session. For the same reason an
    endpoint asks for its body first: nobody who sends slowly has a session.

    Raises:
        DatabaseUnavailable: too many requests have sessions.
    """
    try:
        async with asyncio.timeout(_SLOT_TIMEOUT_S):
            await services.session_slots.acquire()
    except TimeoutError:
        raise DatabaseUnavailable("too many requests wait for the database; try again") from None
    try:
        # A session takes its connection with its first statement, in the endpoint's thread.
        with translated_errors():
            actor = actor_of(request, caller)
            if actor is None:
                with services.readings() as session:  # Nothing is left to commit: to let go waits for nothing.
                    yield session
            else:
                async with _audited(services, actor) as session:
                    yield session
    finally:
        services.session_slots.release()


@asynccontextmanager
async def _audited(services: Services, actor: Actor) -> AsyncIterator[Session]:
    """Yields a session whose transaction ends in a thread: committed with its audit event, or rolled back."""
    session = services.sessions()
    audit.follow(session, actor)
    # One thread more than all that requests may have, so that whoever has a connection can always let it go.
    limiter = CapacityLimiter(1)
    try:
        yield session
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(session.close, limiter=limiter)
        raise
    with CancelScope(shield=True):
        await to_thread.run_sync(_commit, session, limiter=limiter)


def _commit(session: Session) -> None:
    with session:
        audit.write(session)
        session.commit()


# Scope "function": the commit comes before the answer, so that no 201 is sent for a row that was not written.
TheSession = Annotated[Session, Depends(session_of, scope="function")]


@dataclass(frozen=True)
class Upload:
    """A body and its media type."""

    media_type: str
    body: bytes


def upload_of(*media_types: str) -> Callable[..., Awaitable[Upload]]:
    """Returns the dependency that reads a body of one of the media types, no further and no longer than allowed."""

    async def upload(request: Request, services: TheServices, _caller: TheCaller) -> Upload:
        return await _read(request, services, media_types)

    return upload


async def raw_body(request: Request, services: TheServices, _caller: TheCaller) -> bytes:
    """Returns the body of a JSON request, as it came.

    Raises:
        UnsupportedMediaType: it is not declared as JSON, or is compressed.
        PayloadTooLarge: it is over the limit.
        RequestTimeout: it did not arrive in time.
    """
    return (await _read(request, services, ("application/json",))).body


async def _read(request: Request, services: Services, media_types: tuple[str, ...]) -> Upload:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in media_types:
        raise UnsupportedMediaType(f"send the body as {' or '.join(media_types)}")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        # A small compressed body may be of any size when it is open.
        raise UnsupportedMediaType("send the body without Content-Encoding")
    try:
        async with asyncio.timeout(services.settings.body_timeout_seconds):
            return Upload(media_type, await _read_up_to(request, services.settings.max_body_bytes))
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
