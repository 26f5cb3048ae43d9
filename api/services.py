"""What a running API holds: settings, database, store, broker, and the thread that hears wake-ups.

One per application, on `app.state.services`; nothing is made at import and nothing connects before it is used.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from anyio import CapacityLimiter
from sqlalchemy import Engine

from api.buckets import Buckets
from api.events.feed import EventFeed
from api.hints import Hints
from api.rate_limits import RateLimits
from api.waker import Waker
from jobs.db import SessionFactory, make_engine, make_session_factory, reading
from jobs.errors import StoreUnavailable
from jobs.outbound import Outbound
from jobs.sealing import Sealer
from jobs.settings import Settings
from jobs.store import ObjectStore

log = logging.getLogger(__name__)

_HEALTH_THREADS = 9


@dataclass(frozen=True)
class Services:
    """Shared by all requests; every member may be used from several threads."""

    settings: Settings
    engine: Engine
    sessions: SessionFactory
    readings: SessionFactory  # `jobs.db.reading`
    store: ObjectStore
    sealer: Sealer
    outbound: Outbound
    hints: Hints
    buckets: Buckets
    rate_limits: RateLimits
    waker: Waker
    event_feed: EventFeed
    # Requests that may have a session at once: half the connections. Needs no slot what asks and lets go in one thread.
    session_slots: asyncio.Semaphore
    # Apart from the threads of the requests: when those hang, it must still be possible to say so.
    health_threads: CapacityLimiter

    @classmethod
    def of(cls, settings: Settings) -> Services:
        """Returns the services of these settings."""
        engine = make_engine(settings, application="egrpo-api")
        buckets = Buckets(settings.broker_url)
        sessions, waker = make_session_factory(engine), Waker(settings)
        return cls(
            settings=settings,
            engine=engine,
            sessions=sessions,
            readings=reading(sessions),
            store=ObjectStore(settings),
            sealer=Sealer.of(settings),
            outbound=Outbound(settings.outbound_pairs()),
            hints=Hints(settings.broker_url),
            buckets=buckets,
            rate_limits=RateLimits(settings, buckets),
            waker=waker,
            event_feed=EventFeed(sessions, waker),
            session_slots=asyncio.Semaphore(settings.database_pool_size),
            health_threads=CapacityLimiter(_HEALTH_THREADS),
        )

    def start(self) -> None:
        """Starts what runs beside the requests. Must be called on the event loop."""
        self.waker.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            _before_handler(number, self.waker.release)
        threading.Thread(target=self._make_bucket, name="make-bucket", daemon=True).start()

    def stop(self) -> None:
        """Stops it and closes the connections."""
        self.waker.stop()
        self.hints.close()
        self.buckets.close()
        self.engine.dispose()

    def _make_bucket(self) -> None:
        try:
            self.store.ensure_bucket()
        except StoreUnavailable as error:  # Workers make it, too; downloads say 503 until then.
            log.warning("event=bucket_not_made error=%r", error.detail)


def _before_handler(number: signal.Signals, callback: Callable[[], None]) -> None:
    """Calls back when the signal comes, before the server's own handler of it.

    The server first waits for open requests and only then ends the lifespan: a long-poll would hold it up.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(number)

    def both(received: int, frame: FrameType | None) -> None:
        callback()
        if callable(handler):
            handler(received, frame)

    signal.signal(number, both)
