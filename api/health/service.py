"""Checks of what the API needs, side by side and each with a time limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from anyio import to_thread
from sqlalchemy import select

from api.services import Services
from jobs.db import transaction
from jobs.errors import ServiceError
from jobs.tables import Job

log = logging.getLogger(__name__)

_LIMIT_S = 4.0


async def down(services: Services) -> list[str]:
    """Returns the names of what cannot be reached: database, broker, store."""
    checks: dict[str, Callable[[], None]] = {
        "database": lambda: _database(services),
        "broker": services.hints.ping,
        "store": services.store.ping,
    }
    results = await asyncio.gather(*(_passes(services, name, check) for name, check in checks.items()))
    return [name for name, passed in zip(checks, results, strict=True) if not passed]


def _database(services: Services) -> None:
    """Passes if the tables can be read: the database answers and was migrated."""
    with transaction(services.sessions) as session:
        session.execute(select(Job.id, Job.version).limit(1))


async def _passes(services: Services, name: str, check: Callable[[], None]) -> bool:
    """Returns whether a check passes in time. One that hangs is left to its thread, of which there are a few."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            await to_thread.run_sync(check, abandon_on_cancel=True, limiter=services.health_threads)
    except (ServiceError, ConnectionError, TimeoutError) as error:
        log.warning("event=not_ready check=%s error=%r", name, str(error))
        return False
    return True
