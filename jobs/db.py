"""The engine and the sessions. Nothing is made at import: a process builds its own and disposes of it.

Every wait for the database is bounded: connecting, taking a connection from the pool, a statement. What runs into a
bound, or finds the server gone, becomes `DatabaseUnavailable` in `translated_errors`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
    ProgrammingError,
    TimeoutError,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from jobs.errors import DatabaseUnavailable
from jobs.settings import DatabaseSettings
from jobs.shared import Shared

SessionFactory = sessionmaker[Session]

# In the `info` of a factory's sessions: what `jobs.queue_places` remembers of the queue.
SHARED_PICTURE = "queue_picture"

_POOL_TIMEOUT_S = 5.0
_USED_AT, _PING_AFTER_S = "used_at", 1.0
# A peer that vanished without a reset is noticed after this long, not after the kernel's 15 minutes.
_TCP_USER_TIMEOUT_MS = 10_000
# An unknown table, or an unknown column: the code is newer than the schema, while a rollout migrates it.
_NOT_MIGRATED = frozenset({"42P01", "42703"})


def make_engine(settings: DatabaseSettings, *, application: str = "egrpo") -> Engine:
    """Returns an engine with bounded waits. It connects on first use, so that a process may start before Postgres."""
    statement_ms = int(settings.database_statement_timeout_seconds * 1000)
    engine = create_engine(
        settings.database_url,
        # All are kept: one that is closed and opened again costs as much as many requests.
        pool_size=2 * settings.database_pool_size,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=_POOL_TIMEOUT_S,
        connect_args={
            "application_name": application,
            "connect_timeout": settings.database_connect_timeout_seconds,
            "tcp_user_timeout": _TCP_USER_TIMEOUT_MS,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "options": f"-c timezone=UTC -c statement_timeout={statement_ms}"
            " -c idle_in_transaction_session_timeout=120000",
        },
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _ping_if_idle)
    return engine


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = time.monotonic()


def _ping_if_idle(connection: psycopg.Connection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Asks a connection that nobody used for a while whether it lives; the pool replaces those that do not.

    Asking each time would be three of ten round trips of a short request.
    """
    used_at = record.info.get(_USED_AT)
    if used_at is None or time.monotonic() - used_at < _PING_AFTER_S:
        return
    try:
        connection.autocommit = True
        connection.execute("")
        connection.autocommit = False
    except psycopg.Error as error:
        raise InvalidatePoolError from error


def make_session_factory(engine: Engine) -> SessionFactory:
    """Returns the factory of sessions; objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False, info={SHARED_PICTURE: Shared()})


def reading(sessions: SessionFactory) -> SessionFactory:
    """Returns the factory of sessions that only read: each statement sees what is there at its own moment.

    They take a connection with their first statement, and nothing is begun or committed, which would be two round
    trips more. A statement that does write is committed at once.
    """
    engine: Engine = sessions.kw["bind"]
    of_each_statement = engine.execution_options(isolation_level="AUTOCOMMIT")
    return sessionmaker(of_each_statement, expire_on_commit=False, info=sessions.kw["info"])


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns every sign that the database is down or overloaded into `DatabaseUnavailable`.

    Raises:
        DatabaseUnavailable: no connection, none free in time, lost in between, a statement over its time, or
            tables that are not there yet.
    """
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise DatabaseUnavailable("the database cannot be reached; try again") from error
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) in _NOT_MIGRATED:
            raise DatabaseUnavailable("the database was not migrated to this version yet; try again") from error
        raise
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable("the connection to the database was lost; try again") from error
        raise


@contextmanager
def transaction(sessions: SessionFactory) -> Iterator[Session]:
    """Opens a session, commits at the end, rolls back on an error.

    Raises:
        DatabaseUnavailable: as `translated_errors`.
    """
    with translated_errors(), sessions.begin() as session:
        yield session
