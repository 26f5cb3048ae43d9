"""The engine and the sessions. Nothing is made at import: a process builds its own and disposes of it.

Every wait for the database is bounded: connecting, taking a connection from the pool, a statement. What runs into a
bound, or finds the server gone, becomes `DatabaseUnavailable` in `translated_errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from jobs.errors import DatabaseUnavailable
from jobs.settings import DatabaseSettings

SessionFactory = sessionmaker[Session]

_POOL_TIMEOUT_S = 5.0
# A peer that vanished without a reset is noticed after this long, not after the kernel's 15 minutes.
_TCP_USER_TIMEOUT_MS = 10_000
# An unknown table, or an unknown column: the code is newer than the schema, while a rollout migrates it.
_NOT_MIGRATED = frozenset({"42P01", "42703"})


def make_engine(settings: DatabaseSettings, *, application: str = "egrpo") -> Engine:
    """Returns an engine with bounded waits. It connects on first use, so that a process may start before Postgres."""
    statement_ms = int(settings.database_statement_timeout_seconds * 1000)
    return create_engine(
        settings.database_url,
        pool_pre_ping=True,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_size,
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


def make_session_factory(engine: Engine) -> SessionFactory:
    """Returns the factory of sessions; objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


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
