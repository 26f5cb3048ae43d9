"""Many event streams on one API process: how far behind the database they are.

Another process tells of a step of one running job after the other, many jobs in one transaction, as many workers would
at about the same time; each event carries the time at which its transaction was about to commit.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Sequence

import psycopg
from http_load import Measured, Request

_TRANSACTIONS_PER_S = 10
_OPENED_AT_ONCE = 20
_TELL = """
    WITH told AS (
        UPDATE jobs SET next_seq = next_seq + 1 WHERE id = ANY(%(jobs)s) RETURNING id, next_seq - 1 AS seq
    ), rows AS (
        INSERT INTO events (job_id, seq, type, data)
        SELECT id, seq, 'metric', jsonb_build_object('step', seq, 'at', %(at)s::float8,
                                                     'values', jsonb_build_object('reward', 0.5, 'loss', 0.25))
        FROM told RETURNING job_id
    )
    SELECT count(pg_notify('egrpo_events', job_id)) FROM rows
"""


async def lags(
    port: int, libpq_url: str, streams: Sequence[Request], jobs: Sequence[str], events_per_s: float, seconds: float
) -> tuple[Measured, float]:
    """Opens the streams, tells of events, and returns how late each was heard and how long the opening took."""
    heard: list[float] = []
    slots = asyncio.Semaphore(_OPENED_AT_ONCE)
    began = time.monotonic()
    followers = await asyncio.gather(*(_opened(port, request, slots) for request in streams))
    opening_s = time.monotonic() - began
    tasks = [asyncio.create_task(_follow(reader, heard)) for reader, _ in followers]
    teller = multiprocessing.get_context("spawn").Process(
        target=tell, args=(libpq_url, list(jobs), events_per_s, seconds)
    )
    teller.start()
    while teller.is_alive():
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    missed = int(events_per_s / _TRANSACTIONS_PER_S) * int(seconds * _TRANSACTIONS_PER_S) - len(heard)
    for task, (_, writer) in zip(tasks, followers, strict=True):
        task.cancel()
        writer.close()
    return Measured(heard, missed), opening_s


async def _opened(
    port: int, request: Request, slots: asyncio.Semaphore
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with slots:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.wire())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise SystemExit(f"a stream was refused: {head!r}")
        return reader, writer


async def _follow(reader: asyncio.StreamReader, heard: list[float]) -> None:
    """Notes how old each event is when it comes; those from before the measure have no time."""
    while line := await reader.readline():
        if line.startswith(b"data: ") and b'"at":' in line:
            heard.append(time.time() - json.loads(line[6:])["data"]["at"])


def tell(libpq_url: str, jobs: list[str], events_per_s: float, seconds: float) -> None:
    """Appends events at the rate, round and round the jobs."""
    at_once = int(events_per_s / _TRANSACTIONS_PER_S)
    with psycopg.connect(libpq_url, autocommit=True) as connection:
        began = time.monotonic()
        for number in range(int(seconds * _TRANSACTIONS_PER_S)):
            time.sleep(max(0.0, began + number / _TRANSACTIONS_PER_S - time.monotonic()))
            now = [jobs[(number * at_once + each) % len(jobs)] for each in range(at_once)]
            connection.execute(_TELL, {"jobs": now, "at": time.time()})
