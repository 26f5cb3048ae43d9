"""A POST may be repeated: the answer is stored in the transaction of its effect, under the caller's key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from jobs import audit
from jobs.errors import IdempotencyInFlight, IdempotencyKeyReused
from jobs.tables import Document, IdempotencyKey


@dataclass(frozen=True)
class Answer:
    """The body of an answer, and whether it was stored before."""

    body: Document
    replayed: bool

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        return {"Idempotency-Replayed": "true"} if self.replayed else {}


def once(
    session: Session, project_id: str, key: str | None, request: Any, status_code: int, effect: Callable[[], Document]
) -> Answer:
    """Has the effect and returns its answer, or returns the answer of the time before.

    The lock of the key lives as long as the transaction: whoever finds it taken is told to come back.

    Args:
        session: The transaction of the effect.
        project_id: Keys of two projects are different keys.
        key: The caller's; without one the effect is had each time.
        request: What must be the same for a replay: a JSON document.
        status_code: Of the answer.
        effect: Does the work and returns the body.

    Raises:
        IdempotencyInFlight: another request with the key has not finished.
        IdempotencyKeyReused: the key came with another request before.
    """

    def told() -> Document:
        body = effect()
        audit.about(session, target_id=body.get("id"))
        return body

    if key is None:
        return Answer(told(), replayed=False)
    if not session.scalar(_TRY_LOCK, {"number": _lock_id(project_id, key)}):
        raise IdempotencyInFlight("a request with this Idempotency-Key is being worked on")
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    stored = session.get(IdempotencyKey, (project_id, key))
    if stored is not None:
        if stored.request_digest != digest:
            raise IdempotencyKeyReused("this Idempotency-Key was used with another request")
        audit.nothing_was_done(session)
        return Answer(stored.response, replayed=True)
    body = told()
    session.add(
        IdempotencyKey(project_id=project_id, key=key, request_digest=digest, status_code=status_code, response=body)
    )
    return Answer(body, replayed=False)


_TRY_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("number")))


def _lock_id(project_id: str, key: str) -> int:
    digest = hashlib.sha256(f"idempotency\0{project_id}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
