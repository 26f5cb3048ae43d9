"""The audit log: each thing that a key does, written by the session in which it is done.

`follow` makes a session remember who uses it and what the rows were before they were changed; `write` adds the event,
just before the commit. What lies between need not know of it: `about` says what an event is about where the path of the
request does not. A session that nobody follows, a worker's, writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, event, func, inspect, select
from sqlalchemy.orm import Session

from jobs.ids import new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.tables import AuditEvent

_TRAIL = "audit"
_FORGOTTEN_AT_ONCE = 1000


@dataclass(frozen=True)
class Actor:
    """Who does what, as the request says."""

    project_id: str
    key_id: str
    address: str
    action: str
    path: str
    target_id: str | None
    request_id: str


@dataclass
class _Trail:
    """What a session has done so far. It holds the objects, which the session alone would let go."""

    actor: Actor
    project_id: str
    target_id: str | None
    is_replay: bool = False
    touched: dict[str, Any] = field(default_factory=dict)
    before: dict[str, str | None] = field(default_factory=dict)

    def look(self, session: Session, *_: object) -> None:
        """Notes what is about to be written."""
        for row in (*session.new, *session.dirty, *session.deleted):
            row_id = getattr(row, "id", None)
            if row_id is not None and row_id not in self.touched:
                self.touched[row_id] = row
                self.before[row_id] = None if row in session.new else _digest(row, before=True)


@dataclass(frozen=True)
class Wanted:
    """Which events of a project; None: any."""

    action: str | None = None
    key_id: str | None = None
    target_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def follow(session: Session, actor: Actor) -> None:
    """Makes a session remember who uses it and what it changes."""
    trail = _Trail(actor, actor.project_id, actor.target_id)
    session.info[_TRAIL] = trail
    event.listen(session, "before_flush", trail.look)


def about(session: Session, *, target_id: str | None = None, project_id: str | None = None) -> None:
    """Says what the event is about, if it is not what the path names, and whose it is, if it is not the caller's."""
    trail: _Trail | None = session.info.get(_TRAIL)
    if trail is not None:
        trail.target_id = target_id or trail.target_id
        trail.project_id = project_id or trail.project_id


def made(session: Session, row: Any) -> None:
    """Says that a statement made the row: the session, which notes what it writes itself, has only read it since."""
    trail: _Trail | None = session.info.get(_TRAIL)
    if trail is not None:
        trail.touched[row.id], trail.before[row.id] = row, None


def nothing_was_done(session: Session) -> None:
    """Says that the request was answered with what was stored before."""
    if (trail := session.info.get(_TRAIL)) is not None:
        trail.is_replay = True


def write(session: Session) -> None:
    """Adds the event of a session that is followed."""
    trail: _Trail = session.info[_TRAIL]
    if trail.is_replay:
        return
    session.flush()
    actor, target_id = trail.actor, trail.target_id or ""
    row = trail.touched.get(target_id)
    session.add(
        AuditEvent(
            id=new_id("aud"),
            project_id=trail.project_id,
            key_id=actor.key_id,
            address=actor.address,
            action=actor.action,
            path=actor.path,
            target_id=trail.target_id,
            digest_before=trail.before.get(target_id),
            digest_after=None if row is None or inspect(row).was_deleted else _digest_now(session, row),
            request_id=actor.request_id,
        )
    )
    session.flush()


def page(session: Session, project_id: str, wanted: Wanted, *, limit: int, cursor: str | None) -> Page[AuditEvent]:
    """Returns events of the project, newest first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = select(AuditEvent).where(AuditEvent.project_id == project_id)
    for column in (AuditEvent.action, AuditEvent.key_id, AuditEvent.target_id):
        if (value := getattr(wanted, column.key)) is not None:
            statement = statement.where(column == value)
    if wanted.created_after is not None:
        statement = statement.where(AuditEvent.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        statement = statement.where(AuditEvent.created_at < wanted.created_before)
    if cursor is not None:
        statement = statement.where(AuditEvent.id < decode_cursor(cursor))
    rows = session.scalars(statement.order_by(AuditEvent.id.desc()).limit(limit + 1))
    return cut(list(rows), limit, lambda row: row.id)


def forget_old(session: Session, age: timedelta) -> int:
    """Removes events older than that, at most a thousand at once, and returns how many."""
    old = select(AuditEvent.id).where(AuditEvent.created_at < func.now() - age).limit(_FORGOTTEN_AT_ONCE)
    return len(session.scalars(delete(AuditEvent).where(AuditEvent.id.in_(old)).returning(AuditEvent.id)).all())


def _digest_now(session: Session, row: Any) -> str:
    # Columns that a statement changed, and not the object, are not in the object yet.
    session.refresh(row, _columns(row))
    return _digest(row)


def _digest(row: Any, *, before: bool = False) -> str:
    """Returns the SHA-256 of a row's columns.

    A sealed value is deferred and so left out: a digest of it would tell whoever reads the log when it was guessed.
    """
    values = {}
    for name in _columns(row):
        old = inspect(row).attrs[name].history.deleted if before else ()
        values[name] = old[0] if old else getattr(row, name)
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _columns(row: Any) -> list[str]:
    """Returns the names of the columns, without those that are large and read only by who needs them."""
    return [column.key for column in inspect(row).mapper.column_attrs if not column.deferred]
