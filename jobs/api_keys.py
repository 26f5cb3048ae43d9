"""Projects and their API keys: issue, verify, list, rotate, revoke. A key is shown once; only its SHA-256 is kept.

    ega_ + 52 characters (256 random bits) + 7 characters (CRC-32 of all before)

The checksum lets a mistyped key be refused, and a leaked one be recognised in a log, without the database.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import bindparam, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import FieldError, InvalidRequest, InvalidState, NotFound, Unauthorized
from jobs.ids import is_id, new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.scopes import EVERYTHING
from jobs.tables import APIKey, Project

PREFIX = "ega_"
_SECRET_BYTES = 32
_HINT_LENGTH = len(PREFIX) + 6
_LONGEST_LIFE = timedelta(days=3653)


@dataclass(frozen=True)
class Caller:
    """Who asks: the project that every query is scoped to, the key that was shown, and what it may do."""

    project_id: str
    key_id: str
    scopes: frozenset[str]


@dataclass(frozen=True)
class IssuedKey:
    """A new key: its row, and the key in clear, for the only time."""

    row: APIKey
    key: str = field(repr=False)


def new_key() -> str:
    """Returns a new key in clear."""
    body = PREFIX + _base32(secrets.token_bytes(_SECRET_BYTES))
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Returns whether prefix, length and checksum are those of a key; it need not exist."""
    body, checksum = key[:-7], key[-7:]
    return key.startswith(PREFIX) and len(key) == len(PREFIX) + 52 + 7 and checksum == _checksum(body)


def project_named(session: Session, name: str) -> str:
    """Returns the id of the project of that name, which is made if it is not there."""
    session.execute(insert(Project).values(id=new_id("prj"), name=name).on_conflict_do_nothing())
    return session.scalars(select(Project.id).where(Project.name == name)).one()


def issue(
    session: Session, project_id: str, name: str, scopes: Sequence[str], expires_at: datetime | None = None
) -> IssuedKey:
    """Stores a new key of the project.

    Raises:
        InvalidRequest: it would be over at once, or only after ten years.
    """
    if expires_at is not None:
        now = session.scalars(select(func.now())).one()
        if not now < expires_at <= now + _LONGEST_LIFE:
            allowed = f"> {now:%Y-%m-%dT%H:%M:%SZ}, at most ten years later"
            problem = FieldError("out_of_range", "must lie ahead", pointer="/expires_at", allowed=allowed)
            raise InvalidRequest([problem])
    key = new_key()
    row = APIKey(
        id=new_id("key"),
        project_id=project_id,
        name=name,
        sha256=_sha256(key),
        hint=key[:_HINT_LENGTH],
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return IssuedKey(row, key)


def create(session: Session, project_id: str, name: str, scopes: Sequence[str] = (EVERYTHING,)) -> str:
    """Stores a new key of the project and returns it in clear, for the only time."""
    return issue(session, project_id, name, scopes).key


def get(session: Session, project_id: str, key_id: str, *, lock: bool = False) -> APIKey:
    """Returns a key of the project, also one that is not valid any more.

    Raises:
        NotFound: the project has no such key.
    """
    statement = select(APIKey).where(APIKey.project_id == project_id, APIKey.id == key_id)
    row = session.scalar(statement.with_for_update() if lock else statement) if is_id(key_id, "key") else None
    if row is None:
        raise NotFound(f"there is no API key {key_id!r}")
    return row


def page(session: Session, project_id: str, *, limit: int, cursor: str | None = None) -> Page[APIKey]:
    """Returns keys of the project, newest first, also those that are not valid any more.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = select(APIKey).where(APIKey.project_id == project_id).order_by(APIKey.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(APIKey.id < decode_cursor(cursor))
    return cut(list(session.scalars(statement)), limit, lambda row: row.id)


def revoke(session: Session, row: APIKey) -> None:
    """Makes a key invalid from now on; revoking it again changes nothing."""
    if row.revoked_at is None:
        row.revoked_at = func.now()
        session.flush()


def rotate(session: Session, row: APIKey, *, overlap: timedelta) -> IssuedKey:
    """Issues a key with the name, scopes and expiry of this one, whose time ends after the overlap.

    Args:
        session: An open transaction.
        row: The key, locked.
        overlap: How long both are valid, unless the old one expires before; zero revokes it at once.

    Raises:
        InvalidState: the key was revoked or has expired.
    """
    now = session.scalars(select(func.now())).one()
    for status, time in (("revoked", row.revoked_at), ("expired", row.expires_at)):
        if time is not None and time <= now:
            raise InvalidState(f"the key is {status}", status=status, allowed_actions=())
    issued = issue(session, row.project_id, row.name, row.scopes, row.expires_at)
    if overlap:
        row.expires_at = min(now + overlap, row.expires_at or now + overlap)
    else:
        row.revoked_at = now
    session.flush()
    return issued


def verify(session: Session, key: str) -> Caller:
    """Returns whose key that is, and notes its use, at most once a minute.

    Raises:
        Unauthorized: no such key, or it was revoked or has expired. Which of these is not told.
    """
    if not is_well_formed(key):
        raise Unauthorized("the API key is not valid")
    row = session.execute(_VALID, {"sha256": _sha256(key)}).one_or_none()
    if row is None:
        raise Unauthorized("the API key is not valid")
    if not row.is_noted:
        _note_use(session, row.id)
    return Caller(project_id=row.project_id, key_id=row.id, scopes=frozenset(row.scopes))


_A_MINUTE_AGO = func.now() - text("interval '1 minute'")
# Every request asks this: it is built once, which takes longer than asking.
_VALID = select(
    APIKey.id,
    APIKey.project_id,
    APIKey.scopes,
    func.coalesce(APIKey.last_used_at >= _A_MINUTE_AGO, False).label("is_noted"),
).where(
    APIKey.sha256 == bindparam("sha256"),
    APIKey.revoked_at.is_(None),
    or_(APIKey.expires_at.is_(None), APIKey.expires_at > func.now()),
)


def _note_use(session: Session, key_id: str) -> None:
    # Whoever finds the row locked skips it: another request is noting the same minute.
    stale = (
        select(APIKey.id)
        .where(APIKey.id == key_id, or_(APIKey.last_used_at.is_(None), APIKey.last_used_at < _A_MINUTE_AGO))
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    session.execute(update(APIKey).where(APIKey.id == stale).values(last_used_at=func.now()))


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _base32(zlib.crc32(body.encode()).to_bytes(4))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
