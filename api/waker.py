"""Wakes the requests that wait for events of a job.

One thread per process holds one database connection that LISTENs, and sets asyncio events on the loop of the requests.
A wake-up may be missed (the connection was down): waiters therefore look again by themselves every so often.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from jobs.events import CHANNEL
from jobs.settings import DatabaseSettings

log = logging.getLogger(__name__)

_RECONNECT_S = 1.0
_LOOK_AGAIN_S = 5.0
_LOOK_AGAIN_DEAF_S = 0.5
_JOIN_S = 1.0
# A database host that vanished without a word is noticed after some 20 s; until then waiters look by themselves.
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 10, 5, 2


class Waker:
    """Hears NOTIFYs in a thread, wakes waiters on the loop."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._url = settings.database_url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._connect_timeout_s = settings.database_connect_timeout_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        # The thread sleeps in `select` until the database or a stop has something to say; a byte here is the stop.
        self._stop_read, self._stop_write = os.pipe()
        self._listening = False
        # Touched on the loop only.
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def start(self) -> None:
        """Starts the thread; must be called on the loop of the requests."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="waker", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Wakes everybody for good, so that a shutdown waits for no one. From any thread, or a signal handler."""
        if not self._stopping.is_set():
            self._stopping.set()
            os.write(self._stop_write, b".")
        self._on_loop(self._wake_all)

    def stop(self) -> None:
        """Releases the waiters and stops the thread."""
        self.release()
        if self._thread is not None:
            self._thread.join(timeout=_JOIN_S + self._connect_timeout_s)
            self._thread = None
            os.close(self._stop_write)  # The read end, too, would be torn from a thread that did not end in time.

    @property
    def stopping(self) -> bool:
        """Whether waiters should give up."""
        return self._stopping.is_set()

    @property
    def look_again_s(self) -> float:
        """How long a wake-up may have been missed before somebody should look: longer while the database is heard."""
        return _LOOK_AGAIN_S if self._listening else _LOOK_AGAIN_DEAF_S

    @contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """Registers a waiter: enter before reading the table, so that nothing falls in between."""
        event = asyncio.Event()
        self._waiters[job_id].add(event)
        try:
            yield event
        finally:
            self._waiters[job_id].discard(event)
            if not self._waiters[job_id]:
                del self._waiters[job_id]

    async def wait(self, event: asyncio.Event, timeout_s: float) -> None:
        """Returns when the event was set, or when it is time to look again."""
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), min(timeout_s, self.look_again_s))
        event.clear()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                if self._listening:
                    log.warning("event=listen_lost error=%r", str(error))
            self._listening = False
            self._stopping.wait(_RECONNECT_S)

    def _listen(self) -> None:
        with psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=self._connect_timeout_s,
            application_name="egrpo-api-listen",
            keepalives_idle=_KEEPALIVE_IDLE_S,
            keepalives_interval=_KEEPALIVE_INTERVAL_S,
            keepalives_count=_KEEPALIVE_COUNT,
        ) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._listening = True
            self._on_loop(self._wake_all)
            while not self._stopping.is_set():
                select.select([connection.fileno(), self._stop_read], [], [])
                for notify in connection.notifies(timeout=0):
                    self._on_loop(self._wake, notify.payload)

    def _on_loop(self, function: object, *arguments: object) -> None:
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            assert self._loop is not None
            self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]

    def _wake(self, job_id: str) -> None:
        for event in self._waiters.get(job_id, ()):
            event.set()

    def _wake_all(self) -> None:
        for events in list(self._waiters.values()):
            for event in events:
                event.set()
