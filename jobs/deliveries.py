"""Messages to endpoints of webhooks: taken by a sender, noted, shown, sent again, forgotten.

At least once: a message is taken for a minute, and whoever took it notes the outcome. A sender that dies is followed by
another when that minute is over, with the same message id. All times are the database's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, select, true, update
from sqlalchemy.orm import Session, undefer

from jobs.errors import InvalidState, NotFound
from jobs.ids import is_id, new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.sealing import Sealer
from jobs.tables import Document, WebhookDelivery, WebhookEndpoint
from jobs.webhooks import DISABLED_AS_GONE, DISABLED_FOR_FAILING, PING

TAKEN_FOR = timedelta(seconds=60)
_FORGOTTEN_AT_ONCE = 1000
_GONE = 410  # The standard's way for a receiver to say: never again.
_WAIT_ASKED = (429, 503)  # With these statuses Retry-After means that the receiver wants nothing at all before.


@dataclass(frozen=True)
class Message:
    """A message that was taken to be sent, and all that the sender needs."""

    id: str
    endpoint_id: str
    attempt: int
    url: str
    type: str
    data: Document
    created_at: datetime
    sent_at: datetime
    sealed_secrets: tuple[str, ...] = field(repr=False)

    def secrets(self, sealer: Sealer) -> list[str]:
        """Returns what the message is signed with, the newest first.

        Raises:
            SealingNotConfigured: There is no key.
            SealedUnreadable: No key opens them.
        """
        return [sealer.open(self.endpoint_id, sealed) for sealed in self.sealed_secrets]


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt: the receiver's status, or why there is none, and what its Retry-After said."""

    status: int | None
    error: str | None
    retry_after_s: float | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has it: any 2xx, as the standard says."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class Patience:
    """How long a receiver may fail: the pauses between attempts, and when an endpoint is disabled."""

    pauses: Sequence[timedelta]
    disable_after: timedelta

    def pause_after(self, attempt: int) -> timedelta | None:
        """Returns the pause after the attempt of that number, or None after the last one."""
        return self.pauses[attempt - 1] if attempt <= len(self.pauses) else None

    def hold_after(self, outcome: Outcome) -> timedelta:
        """Returns for how long the receiver asked to be left alone: from 0 to the longest of our own pauses.

        A receiver that names more, or the date itself as seconds, is asked again then, while its message still has
        attempts.
        """
        if outcome.retry_after_s is None or outcome.status not in _WAIT_ASKED:
            return timedelta(0)
        longest = max(self.pauses, default=timedelta(0))
        return timedelta(seconds=min(outcome.retry_after_s, longest.total_seconds()))


def take(session: Session, *, limit: int, busy: Collection[str] = ()) -> list[Message]:
    """Takes the oldest due message of each of at most `limit` endpoints, so that a slow one holds up no other.

    One that asked for time is left alone until it is over.

    Args:
        session: An open transaction.
        limit: How many at most.
        busy: Endpoints that are left out, because they are being sent something.
    """
    due = (
        select(WebhookDelivery.id, WebhookDelivery.next_attempt_at)
        .where(WebhookDelivery.endpoint_id == WebhookEndpoint.id, *_due())
        .order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id)
        .limit(1)
        .correlate(WebhookEndpoint)
        .lateral()
    )
    chosen = (
        select(due.c.id)
        .select_from(WebhookEndpoint)
        .join(due, onclause=WebhookEndpoint.disabled_at.is_(None))
        .where(WebhookEndpoint.id.not_in(busy))
        .where(func.coalesce(WebhookEndpoint.held_until <= func.clock_timestamp(), true()))
        .order_by(due.c.next_attempt_at)
        .limit(limit)
    )
    statement = (
        select(WebhookDelivery, WebhookEndpoint, func.clock_timestamp())
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.id.in_(chosen), *_due())
        .options(undefer(WebhookEndpoint.sealed), undefer(WebhookEndpoint.sealed_previous))
        .with_for_update(of=WebhookDelivery, skip_locked=True)
    )
    return [_taken(*row) for row in session.execute(statement).all()]


def _due() -> tuple[ColumnElement[bool], ...]:
    return WebhookDelivery.status == "pending", WebhookDelivery.next_attempt_at <= func.clock_timestamp()


def _taken(delivery: WebhookDelivery, endpoint: WebhookEndpoint, now: datetime) -> Message:
    delivery.attempts += 1
    delivery.last_attempt_at = now
    delivery.next_attempt_at = now + TAKEN_FOR
    previous = endpoint.sealed_previous if endpoint.previous_until and endpoint.previous_until > now else None
    return Message(
        id=delivery.id,
        endpoint_id=endpoint.id,
        attempt=delivery.attempts,
        url=endpoint.url,
        type=delivery.type,
        data=delivery.data,
        created_at=delivery.created_at,
        sent_at=now,
        sealed_secrets=(endpoint.sealed,) if previous is None else (endpoint.sealed, previous),
    )


def note(session: Session, message: Message, outcome: Outcome, patience: Patience) -> str | None:
    """Notes what became of an attempt, unless the message was taken again since.

    Returns:
        Why the endpoint was disabled now, or None if it was not.
    """
    # The endpoint first, as its deletion does: the two would lock each other out.
    held = select(WebhookEndpoint.id).where(WebhookEndpoint.id == message.endpoint_id)
    if session.scalar(held.with_for_update(key_share=True)) is None:
        return None
    values: dict[str, Any] = {"response_status": outcome.status, "error": outcome.error}
    pause = patience.pause_after(message.attempt)
    if outcome.is_delivered:
        values |= {"status": "delivered", "delivered_at": func.clock_timestamp(), "next_attempt_at": None}
    elif pause is None or outcome.status == _GONE:
        values |= {"status": "failed", "next_attempt_at": None}
    else:
        # Never sooner than our own pause: a receiver that asks for a second would use up all attempts in ten.
        values |= {"next_attempt_at": func.clock_timestamp() + max(pause, patience.hold_after(outcome))}
    mine = (
        WebhookDelivery.id == message.id,
        WebhookDelivery.attempts == message.attempt,
        WebhookDelivery.status == "pending",
    )
    noted = session.scalar(update(WebhookDelivery).where(*mine).values(values).returning(WebhookDelivery.id))
    return None if noted is None else _note_health(session, message.endpoint_id, outcome, patience)


def _note_health(session: Session, endpoint_id: str, outcome: Outcome, patience: Patience) -> str | None:
    """Notes on the endpoint since when it fails and until when to leave it alone; disables it when that is too long."""
    is_it = WebhookEndpoint.id == endpoint_id
    if outcome.is_delivered:
        failing = WebhookEndpoint.failing_since.is_not(None)
        session.execute(update(WebhookEndpoint).where(is_it, failing).values(failing_since=None, held_until=None))
        return None
    now = func.clock_timestamp()
    hold = patience.hold_after(outcome)
    values = {
        "failing_since": func.coalesce(WebhookEndpoint.failing_since, now),
        "held_until": now + hold if hold else None,
    }
    session.execute(update(WebhookEndpoint).where(is_it).values(values))
    reason = DISABLED_AS_GONE if outcome.status == _GONE else DISABLED_FOR_FAILING
    too_long = true() if outcome.status == _GONE else WebhookEndpoint.failing_since <= now - patience.disable_after
    disabled = session.scalar(
        update(WebhookEndpoint)
        .where(is_it, WebhookEndpoint.disabled_at.is_(None), too_long)
        .values(disabled_at=now, disabled_reason=reason)
        .returning(WebhookEndpoint.id)
    )
    return None if disabled is None else reason


def page(
    session: Session,
    endpoint: WebhookEndpoint,
    *,
    limit: int,
    cursor: str | None = None,
    statuses: Collection[str] = (),
    type: str | None = None,
) -> Page[WebhookDelivery]:
    """Returns messages to an endpoint, newest first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = _of(endpoint).order_by(WebhookDelivery.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(WebhookDelivery.id < decode_cursor(cursor))
    if statuses:
        statement = statement.where(WebhookDelivery.status.in_(statuses))
    if type is not None:
        statement = statement.where(WebhookDelivery.type == type)
    return cut(list(session.scalars(statement)), limit, lambda delivery: delivery.id)


def get(session: Session, endpoint: WebhookEndpoint, delivery_id: str, *, lock: bool = False) -> WebhookDelivery:
    """Returns a message to an endpoint.

    Raises:
        NotFound: the endpoint has no such message.
    """
    statement = _of(endpoint).where(WebhookDelivery.id == delivery_id)
    if lock:
        statement = statement.with_for_update()
    delivery = session.scalar(statement) if is_id(delivery_id, "msg") else None
    if delivery is None:
        raise NotFound(f"there is no delivery {delivery_id!r} to this endpoint")
    return delivery


def send_again(session: Session, endpoint: WebhookEndpoint, delivery_id: str) -> WebhookDelivery:
    """Puts a message back into the outbox, with its id and from its first attempt, whatever became of it.

    Raises:
        NotFound: the endpoint has no such message.
        InvalidState: the endpoint is disabled.
    """
    _refuse_disabled(endpoint)
    delivery = get(session, endpoint, delivery_id, lock=True)
    delivery.status, delivery.attempts, delivery.delivered_at = "pending", 0, None
    delivery.next_attempt_at = func.clock_timestamp()
    session.flush()
    session.refresh(delivery)
    return delivery


def ping(session: Session, endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Writes a message that tells of nothing, whatever events the endpoint wants.

    Raises:
        InvalidState: the endpoint is disabled.
    """
    _refuse_disabled(endpoint)
    delivery = WebhookDelivery(id=new_id("msg"), endpoint_id=endpoint.id, type=PING, data={"endpoint_id": endpoint.id})
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    return delivery


def forget(session: Session, older_than: timedelta) -> int:
    """Deletes some old messages that nobody waits for, and returns how many."""
    old = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.status != "pending", WebhookDelivery.created_at < func.clock_timestamp() - older_than)
        .limit(_FORGOTTEN_AT_ONCE)
    )
    return len(
        session.scalars(delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).returning(WebhookDelivery.id)).all()
    )


def _refuse_disabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.disabled_at is not None:
        raise InvalidState(
            f"the endpoint is disabled ({endpoint.disabled_reason})", status="disabled", allowed_actions=["enable"]
        )


def _of(endpoint: WebhookEndpoint) -> Select[WebhookDelivery]:
    return select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id)
