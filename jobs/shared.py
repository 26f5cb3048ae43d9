"""What is costly to make, and shared by the requests of a process for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# A reading serves twenty times as long as it took: at most a twentieth of one core is spent on readings.
_SERVES_TIMES = 20
_PAUSE_AFTER, _PAUSE_S = 250, 0.001


class Shared(Generic[T]):
    """The last reading that was worth keeping. May be used from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts without a reading.

        Args:
            clock: Seconds on a clock that never goes back.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[T, float] | None = None

    @property
    def last(self) -> T | None:
        """The last reading, if it was worth keeping."""
        return None if self._last is None else self._last[0]

    def read(self, make: Callable[[], T], is_costly: Callable[[T], bool]) -> T:
        """Returns the last reading while it serves, else a new one.

        One thread makes it; the others meanwhile make do with the last.

        Args:
            make: Makes a reading.
            is_costly: Whether a reading is worth keeping; what is not is made anew for everybody.
        """
        last = self._last
        if last is not None and self._clock() < last[1]:
            return last[0]
        if last is not None and not self._lock.acquire(blocking=False):
            return last[0]
        try:
            begun = self._clock()
            made = make()
            serves_until = self._clock() + _SERVES_TIMES * (self._clock() - begun)
            self._last = (made, serves_until) if is_costly(made) else None
            return made
        finally:
            if last is not None:
                self._lock.release()


def considerately(items: Iterable[T]) -> Iterator[T]:
    """Yields the items of a long computation, with pauses in which other threads get on with theirs.

    Without them a request that waits for the network ten times would wait ten times more, a switch interval of the
    interpreter each.
    """
    for number, item in enumerate(items, start=1):
        yield item
        if number % _PAUSE_AFTER == 0:
            time.sleep(_PAUSE_S)
