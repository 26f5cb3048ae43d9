"""Checks of what the API needs, side by side and each with a time limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

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
    results = await asyncio.gather(*(_passes(name, check) for name, check in checks.items()))
    return [name for name, passed in zip(checks, results, strict=True) if not passed]


def _database(services: Services) -> None:
    """Passes if the tables can be read: the database answers and was migrated."""
    with transaction(services.sessions) as session:
        session.execute(select(Job.id, Job.version).limit(1))


async def _passes(name: str, check: Callable[[], None]) -> bool:
    try:
        async with asyncio.timeout(_LIMIT_S):
            await run_in_threadpool(check)
    except (ServiceError, ConnectionError, TimeoutError) as error:
        log.warning("event=not_ready check=%s error=%r", name, str(error))
        return False
    return True
