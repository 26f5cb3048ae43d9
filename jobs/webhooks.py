"""Endpoints of webhooks, and the outbox: what happens is written down for them in the transaction in which it happens.

Every query is scoped to the project. `jobs.deliveries` sends what lies in the outbox, and shows what became of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Literal

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, undefer

from jobs import signatures
from jobs.errors import InUse, NotFound
from jobs.ids import is_id, new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.sealing import Sealer
from jobs.tables import Document, WebhookDelivery, WebhookEndpoint

EventType = Literal[
    "*",
    "checkpoint.created",
    "job.queued",
    "job.running",
    "job.pausing",
    "job.paused",
    "job.cancelling",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
]
PING = "webhook.ping"
MAX_ENDPOINTS = 20  # Each costs a row for everything that happens in the project.
DISABLED_BY_USER = "user"
DISABLED_FOR_FAILING = "failing"
DISABLED_AS_GONE = "gone"


def announce(session: Session, project_id: str, type: str, data: Document) -> None:
    """Writes a message for every endpoint of the project that wants to be told of it.

    One that is disabled gets it as failed, so that nothing is lost in silence: it can be sent when all is well again.
    """
    found = session.execute(_WANTING, {"project_id": project_id, "types": [type, "*"]})
    for endpoint_id, disabled_at in found.all():
        if disabled_at is None:
            session.add(WebhookDelivery(id=new_id("msg"), endpoint_id=endpoint_id, type=type, data=data))
        else:
            session.add(
                WebhookDelivery(
                    id=new_id("msg"), endpoint_id=endpoint_id, type=type, data=data,
                    status="failed", next_attempt_at=None, error="the endpoint was disabled",
                )
            )  # fmt: skip
    session.flush()


_WANTING = (
    select(WebhookEndpoint.id, WebhookEndpoint.disabled_at)
    .where(WebhookEndpoint.project_id == bindparam("project_id"), WebhookEndpoint.events.overlap(bindparam("types")))
    .with_for_update(read=True, key_share=True)  # Nobody deletes one before its message is committed.
)


def create(
    session: Session, sealer: Sealer, project_id: str, *, url: str, events: Collection[str], description: str
) -> tuple[WebhookEndpoint, str]:
    """Stores an endpoint and returns it with its secret, which nothing shows again.

    Raises:
        InUse: the project has as many as it may.
        SealingNotConfigured: there is no key to encrypt with.
    """
    if session.scalars(select(func.count()).select_from(_of(project_id).subquery())).one() >= MAX_ENDPOINTS:
        raise InUse(f"a project has at most {MAX_ENDPOINTS} webhook endpoints")
    secret = signatures.new_secret()
    endpoint_id = new_id("whe")
    endpoint = WebhookEndpoint(
        id=endpoint_id,
        project_id=project_id,
        url=url,
        events=sorted(set(events)),
        description=description,
        sealed=sealer.seal(endpoint_id, secret),
    )
    session.add(endpoint)
    session.flush()
    session.refresh(endpoint)
    return endpoint, secret


def get(session: Session, project_id: str, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint:
    """Returns an endpoint of the project.

    Raises:
        NotFound: the project has no such endpoint.
    """
    statement = _of(project_id).where(WebhookEndpoint.id == endpoint_id)
    if lock:
        statement = statement.options(undefer(WebhookEndpoint.sealed)).with_for_update(key_share=True)
    endpoint = session.scalar(statement) if is_id(endpoint_id, "whe") else None
    if endpoint is None:
        raise NotFound(f"there is no webhook endpoint {endpoint_id!r}")
    return endpoint


def page(session: Session, project_id: str, *, limit: int, cursor: str | None = None) -> Page[WebhookEndpoint]:
    """Returns endpoints of the project, newest first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = _of(project_id).order_by(WebhookEndpoint.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(WebhookEndpoint.id < decode_cursor(cursor))
    return cut(list(session.scalars(statement)), limit, lambda endpoint: endpoint.id)


def change(
    session: Session,
    project_id: str,
    endpoint_id: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    description: str | None = None,
    enabled: bool | None = None,
) -> WebhookEndpoint:
    """Changes what is not None. Enabled again, an endpoint is as a new one: not failing, and asked at once.

    Raises:
        NotFound: the project has no such endpoint.
    """
    endpoint = get(session, project_id, endpoint_id, lock=True)
    endpoint.url = endpoint.url if url is None else url
    endpoint.events = endpoint.events if events is None else sorted(set(events))
    endpoint.description = endpoint.description if description is None else description
    if enabled is True:
        endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = endpoint.held_until = None
    elif enabled is False and endpoint.disabled_at is None:
        endpoint.disabled_at, endpoint.disabled_reason = func.clock_timestamp(), DISABLED_BY_USER
    session.flush()
    session.refresh(endpoint)
    return endpoint


def remove(session: Session, project_id: str, endpoint_id: str) -> None:
    """Deletes an endpoint with all that was to be told it.

    Raises:
        NotFound: the project has no such endpoint.
    """
    session.delete(get(session, project_id, endpoint_id, lock=True))
    session.flush()


def rotate_secret(
    session: Session, sealer: Sealer, project_id: str, endpoint_id: str, *, overlap: timedelta
) -> tuple[WebhookEndpoint, str]:
    """Gives an endpoint a new secret, which nothing shows again; for a while the old one signs as well.

    Raises:
        NotFound: the project has no such endpoint.
        SealingNotConfigured: there is no key to encrypt with.
    """
    endpoint = get(session, project_id, endpoint_id, lock=True)
    secret = signatures.new_secret()
    endpoint.sealed_previous = endpoint.sealed if overlap else None
    endpoint.previous_until = func.clock_timestamp() + overlap if overlap else None
    endpoint.sealed = sealer.seal(endpoint.id, secret)
    session.flush()
    session.refresh(endpoint)
    return endpoint, secret


def _of(project_id: str) -> Select[WebhookEndpoint]:
    return select(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
