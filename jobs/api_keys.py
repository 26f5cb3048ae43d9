"""Projects and their API keys. A key is shown once; only its SHA-256 is kept.

    ega_ + 52 characters (256 random bits) + 7 characters (CRC-32 of all before)

The checksum lets a mistyped key be refused, and a leaked one be recognised in a log, without the database.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import zlib
from dataclasses import dataclass

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import Unauthorized
from jobs.ids import new_id
from jobs.tables import APIKey, Project

PREFIX = "ega_"
_SECRET_BYTES = 32
_HINT_LENGTH = len(PREFIX) + 6


@dataclass(frozen=True)
class Caller:
    """Who asks: the project that every query is scoped to, and the key that was shown."""

    project_id: str
    key_id: str


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


def create(session: Session, project_id: str, name: str) -> str:
    """Stores a new key of the project and returns it in clear, for the only time."""
    key = new_key()
    session.add(
        APIKey(id=new_id("key"), project_id=project_id, name=name, sha256=_sha256(key), hint=key[:_HINT_LENGTH])
    )
    session.flush()
    return key


def verify(session: Session, key: str) -> Caller:
    """Returns whose key that is, and notes its use, at most once a minute.

    Raises:
        Unauthorized: no such key, or it was revoked or has expired. Which of these is not told.
    """
    if not is_well_formed(key):
        raise Unauthorized("the API key is not valid")
    a_minute_ago = func.now() - text("interval '1 minute'")
    is_noted = func.coalesce(APIKey.last_used_at >= a_minute_ago, False)
    statement = select(APIKey.id, APIKey.project_id, is_noted.label("is_noted")).where(
        APIKey.sha256 == _sha256(key),
        APIKey.revoked_at.is_(None),
        or_(APIKey.expires_at.is_(None), APIKey.expires_at > func.now()),
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        raise Unauthorized("the API key is not valid")
    if not row.is_noted:
        _note_use(session, row.id)
    return Caller(project_id=row.project_id, key_id=row.id)


def _note_use(session: Session, key_id: str) -> None:
    a_minute_ago = func.now() - text("interval '1 minute'")
    # Whoever finds the row locked skips it: another request is noting the same minute.
    stale = (
        select(APIKey.id)
        .where(APIKey.id == key_id, or_(APIKey.last_used_at.is_(None), APIKey.last_used_at < a_minute_ago))
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
