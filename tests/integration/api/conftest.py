"""The API in this process over the real servers, with two projects and what a worker would have written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
import uvicorn
from api_bench import PATIENCE_S, Bench, Served
from fastapi.testclient import TestClient

from api import buckets, dependencies, hints, waker
from api.main import create_app
from jobs import db
from jobs.settings import Settings


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an application wait for servers and for its own threads longer than a busy machine keeps them from a core.

    What it does when one does not answer is for the tests of that, which ask for the limits that the service has.
    """
    monkeypatch.setattr(hints, "_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(buckets, "_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(db, "_POOL_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(dependencies, "_SLOT_TIMEOUT_S", PATIENCE_S)


@pytest.fixture
def only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the looks away that make up for a lost wake-up: who waits is woken, or waits to the end."""
    monkeypatch.setattr(waker, "_LOOK_AGAIN_S", 3600.0)
    monkeypatch.setattr(waker, "_LOOK_AGAIN_DEAF_S", 3600.0)


@pytest.fixture
def settings(service_env: dict[str, str]) -> Settings:
    values = {name.removeprefix("EGRPO_").lower(): value for name, value in service_env.items()}
    return Settings(
        **values,
        s3_public_endpoint=values["s3_endpoint"],
        max_body_bytes=100_000,
        database_connect_timeout_seconds=int(PATIENCE_S),
        database_statement_timeout_seconds=PATIENCE_S,
    )


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield Bench(client, settings)


@pytest.fixture
def served(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.02)
    bench = Bench(cast(TestClient, SimpleNamespace(app=app)), settings)
    served = Served(bench, server.servers[0].sockets[0].getsockname()[1])
    monkeypatch.setenv("EGRPO_URL", served.url)
    monkeypatch.setenv("EGRPO_API_KEY", bench.key)
    yield served
    server.should_exit = True
    thread.join()
