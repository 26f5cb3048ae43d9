"""Requests at a fixed rate over kept connections, whatever the answers take (open loop), in one thread.

A request's time runs from when it was due, so that a server that falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MOST_CONNECTIONS = 256
_KEPT_S = 3.0  # uvicorn closes a connection that was idle for five.


@dataclass(frozen=True)
class Request:
    """One request, as it goes over the wire."""

    method: str
    path: str
    key: str
    headers: str = ""
    body: bytes = b""

    def wire(self) -> bytes:
        """Returns its bytes."""
        length = f"Content-Length: {len(self.body)}\r\n" if self.body else ""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.key}\r\n"
        return f"{head}{self.headers}{length}\r\n".encode() + self.body


@dataclass(frozen=True)
class Measured:
    """How long things took, in seconds, and how many went wrong."""

    seconds: Sequence[float]
    errors: int

    def quantile(self, share: float) -> float:
        """Returns the time that this share did not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


class Connections:
    """Kept connections to one server; as many as are needed at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []
        self._slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def status_of(self, request: Request) -> int:
        """Sends a request, reads the whole answer, and returns its status."""
        async with self._slots:
            reader, writer = self._kept() or await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(request.wire())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length: " in head:
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            elif b"transfer-encoding: chunked" in head:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(size + 2)
                await reader.readexactly(2)
            self._idle.append((reader, writer, time.monotonic()))
            return int(head.split(b" ", 2)[1])

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Returns the connection used last, unless the server may be about to close it."""
        if not self._idle:
            return None
        reader, writer, used_at = self._idle.pop()
        if time.monotonic() - used_at < _KEPT_S:
            return reader, writer
        writer.close()
        self.close()  # The others were used before it.
        return None

    def close(self) -> None:
        """Closes those that are idle."""
        while self._idle:
            self._idle.pop()[1].close()


async def at_rate(ports: Sequence[int], requests: Callable[[int], Request], rate: float, seconds: float) -> Measured:
    """Sends request 0, 1, 2, … at the rate, to each server in turn, and returns what their answers took."""
    loop, servers = asyncio.get_running_loop(), [Connections(port) for port in ports]
    taken: list[float] = []
    errors = 0

    async def one(number: int, due: float) -> None:
        nonlocal errors
        status = await servers[number % len(servers)].status_of(requests(number))
        taken.append(loop.time() - due)
        errors += status >= 400

    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(due - loop.time())
            group.create_task(one(number, due))
    for connections in servers:
        connections.close()
    return Measured(taken, errors)
