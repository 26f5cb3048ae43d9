"""The HTTP server: uvicorn, which looks at its clock once a second instead of ten times.

The tick sets the `Date` header and asks whether to stop. At ten a second it is most of what an idle API uses; beside
a trainer on the same machine that is time of the trainer's. A stop signal does not wait for the tick.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import FrameType

import uvicorn

_TICK_S = 1.0


class Server(uvicorn.Server):
    """One server process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_to_stop = asyncio.Event()

    async def main_loop(self) -> None:
        """Serves until a signal asks for the end."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # Ticks numbered 0 set the header.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_stop.wait(), _TICK_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes a stop signal and wakes the loop for it."""
        super().handle_exit(sig, frame)
        if self._loop is not None:  # Before the first tick there is nothing to wake: it asks by itself.
            with suppress(RuntimeError):  # The loop is closed: the server has stopped already.
                self._loop.call_soon_threadsafe(self._told_to_stop.set)


def serve(host: str, port: int) -> None:
    """Serves the application of this environment's settings until SIGTERM or SIGINT.

    Raises:
        SettingsError: naming every variable that is missing or wrong.
    """
    config = uvicorn.Config("api.main:create_app", factory=True, host=host, port=port, access_log=False)
    Server(config).run()
