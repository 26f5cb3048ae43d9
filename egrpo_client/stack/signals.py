"""An orderly answer to Ctrl-C, SIGTERM and a closed terminal."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class StopRequestedError(BaseException):
    """Somebody asked this process to stop; no fault, and not to be caught as one."""


class StopSignals:
    """Raises `StopRequestedError` in the main thread on the first stop signal; later ones change nothing.

    Inside `deferred()` the request is kept and raised at its end: a server that was just started must be noted before
    anything is stopped, and a stop that is under way must not be torn by a second Ctrl-C.
    """

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._depth = 0
        self._pending = False
        self._raised = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handles the stop signals while the block runs (main thread only)."""
        previous = {number: signal.signal(number, self._handle) for number in self.NUMBERS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds a request back until the block has ended."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        self._raise_pending()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        self._raise_pending()

    def _raise_pending(self) -> None:
        if self._pending and not self._raised and self._depth == 0:
            self._raised = True
            raise StopRequestedError
