"""A service that answers from a script, and both clients of it behind one surface."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from egrpo_client import AsyncClient, AsyncJob, Client, Downloaded, Retries
from egrpo_client.aio import files as aio_files
from egrpo_client.sync import files as sync_files

Answer = Callable[[httpx.Request], httpx.Response] | httpx.Response
Answering = Callable[[httpx.Request], httpx.Response]
NO_PAUSE = Retries(backoff_s=0.0)


class Sync:
    """Makes synchronous clients."""

    name = "sync"

    def client(self, answer: Answering, retries: Retries = NO_PAUSE) -> Any:
        return Client("http://service", "ega_secret", retries=retries, transport=httpx.MockTransport(answer))

    def fetch(self, client: Any, url_path: str, target: Path, sha256: str, size_bytes: int) -> Downloaded:
        return sync_files.fetch(client, url_path, target, sha256, size_bytes)


class Async:
    """Makes asynchronous clients, each call of which is waited for."""

    name = "aio"

    def client(self, answer: Answering, retries: Retries = NO_PAUSE) -> Any:
        transport = httpx.MockTransport(answer)
        return Awaited(AsyncClient("http://service", "ega_secret", retries=retries, transport=transport))

    def fetch(self, client: Any, url_path: str, target: Path, sha256: str, size_bytes: int) -> Downloaded:
        return asyncio.run(aio_files.fetch(client.inner, url_path, target, sha256, size_bytes))


Half = Sync | Async
HALVES = (Sync, Async)


class Awaited:
    """An object whose asynchronous methods are run to their end: they look like the synchronous ones."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.inner, name)
        return (lambda *args, **kwargs: _ended(member(*args, **kwargs))) if callable(member) else member


def _ended(result: Any) -> Any:
    async def all_of_it() -> list[Any]:
        return [each async for each in result]

    if inspect.iscoroutine(result):
        return _ended(asyncio.run(result))
    if hasattr(result, "__aiter__"):
        return asyncio.run(all_of_it())
    return Awaited(result) if isinstance(result, AsyncJob) else result


def script(*answers: Answer) -> tuple[Answering, list[httpx.Request]]:
    """Returns a service that gives these answers in turn, and the list of the requests that it got."""
    requests: list[httpx.Request] = []
    remaining = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        each = next(remaining)
        return each if isinstance(each, httpx.Response) else each(request)

    return answer, requests


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def cut_off(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset", request=request)


def problem(status: int, headers: dict[str, str] | None = None, **fields: object) -> httpx.Response:
    return httpx.Response(status, json={"title": "Problem", **fields}, headers=headers)


def job(status: str, **fields: object) -> dict[str, Any]:
    return {"id": "job_1", "status": status, "version": 1, "status_reason": None, **fields}


def stream(*seqs: int, status: str = "running", done: bool = False) -> httpx.Response:
    """Returns one batch of events, the job behind it and, where it has ended, `done`."""
    lines = ["retry: 1000\n\n", ": ping\n\n"]
    lines += [f"id: {seq}\nevent: log\ndata: {json.dumps({'seq': seq, 'type': 'log'})}\n\n" for seq in seqs]
    state = json.dumps(job(status))
    lines += [f"event: job\ndata: {state}\n\n", f"event: done\ndata: {state}\n\n" * done]
    return httpx.Response(200, text="".join(lines), headers={"content-type": "text/event-stream"})
