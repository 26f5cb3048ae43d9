"""Forgets the stored answers of POSTs that nobody repeats any more. `api.idempotency` stores and replays them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from jobs.tables import IdempotencyKey

_AT_ONCE = 1_000


def forget_old(session: Session, age: timedelta) -> int:
    """Deletes keys that are older, the oldest first, and returns how many; there may be more while it is not 0.

    A key that somebody else deletes at the moment is passed over. One that is being replayed is replayed: its answer
    has been read.
    """
    oldest = (
        select(IdempotencyKey.project_id, IdempotencyKey.key)
        .where(IdempotencyKey.created_at < func.now() - age)
        .order_by(IdempotencyKey.created_at)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("oldest")
    )
    statement = delete(IdempotencyKey).where(
        IdempotencyKey.project_id == oldest.c.project_id, IdempotencyKey.key == oldest.c.key
    )
    return len(session.execute(statement.returning(IdempotencyKey.key)).all())
