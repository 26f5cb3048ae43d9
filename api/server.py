"""The HTTP server: uvicorn, which looks at its clock once a second instead of ten times.

The tick sets the `Date` header and asks whether to stop. At ten a second it is most of what an idle API uses; beside
a trainer on the same machine that is time of the trainer's. A stop signal does not wait for the tick.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import socket
from contextlib import suppress
from types import FrameType

import uvicorn
from sqlalchemy.orm import configure_mappers

from jobs.errors import SettingsError

_TICK_S = 1.0


class Server(uvicorn.Server):
    """One server process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_to_stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, which is loaded by now, and listens."""
        # Code, schemas and tables stay as long as the process. To look through them for garbage takes a tenth of a
        # second and more, now and then, in which no request is answered.
        configure_mappers()
        gc.collect()
        gc.freeze()
        await super().startup(sockets)

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


def proxies(named: str) -> list[str]:
    """Returns the addresses and networks whose `X-Forwarded-For` is believed, from uvicorn's own variable.

    Whoever is believed chooses the address that is counted for wrong keys and that the audit log shows.

    Raises:
        SettingsError: one of them is neither, which uvicorn would pass over in silence, or is everybody.
    """
    found = [each for part in named.split(",") if (each := part.strip())]
    for each in found:
        try:
            is_everybody = ipaddress.ip_network(each).prefixlen == 0
        except ValueError:
            is_everybody = each == "*"
            if not is_everybody:
                raise SettingsError(
                    f"FORWARDED_ALLOW_IPS: {each!r} is neither an IP address nor a network as in 10.1.0.0/16"
                ) from None
        if is_everybody:
            raise SettingsError(f"FORWARDED_ALLOW_IPS: {each!r} is everybody; name the proxy's address or network")
    return found


def serve(host: str, port: int) -> None:
    """Serves the application of this environment's settings until SIGTERM or SIGINT.

    Raises:
        SettingsError: naming every variable that is missing or wrong.
    """
    config = uvicorn.Config(
        "api.main:create_app",
        factory=True,
        host=host,
        port=port,
        access_log=False,
        forwarded_allow_ips=proxies(os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")),
    )
    Server(config).run()
