"""Seals every encrypted value of the database anew, after a key was put before the others in `EGRPO_SECRET_KEYS`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from jobs.db import SessionFactory, transaction
from jobs.sealing import Sealer
from jobs.tables import Secret, WebhookEndpoint

_ROWS_AT_ONCE = 200
# Every column that `jobs.sealing` writes, with the id that is sealed in.
SEALED: tuple[tuple[InstrumentedAttribute[str], InstrumentedAttribute[Any]], ...] = (
    (Secret.id, Secret.sealed),
    (WebhookEndpoint.id, WebhookEndpoint.sealed),
    (WebhookEndpoint.id, WebhookEndpoint.sealed_previous),
)


def rekey(sessions: SessionFactory, sealer: Sealer) -> int:
    """Returns how many values were sealed anew. May be interrupted and run again, beside a running service.

    Raises:
        SealedUnreadable: a value that none of the keys opens; those before it are done.
        SealingNotConfigured: there is no key.
    """
    return sum(_rekey_column(sessions, sealer, id_, sealed) for id_, sealed in SEALED)


def _rekey_column(
    sessions: SessionFactory, sealer: Sealer, id_: InstrumentedAttribute[str], sealed: InstrumentedAttribute[Any]
) -> int:
    count, after = 0, ""
    while True:
        with transaction(sessions) as session:
            statement = select(id_.class_).where(id_ > after, sealed.is_not(None)).order_by(id_).limit(_ROWS_AT_ONCE)
            rows = list(session.scalars(statement.with_for_update()))
            for row in rows:
                setattr(row, sealed.key, sealer.seal(row.id, sealer.open(row.id, getattr(row, sealed.key))))
        if not rows:
            return count
        count, after = count + len(rows), rows[-1].id
