"""The API in this process over the real servers, with two projects and what a worker would have written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
import uvicorn
from api_bench import Bench, Served
from fastapi.testclient import TestClient

from api.main import create_app
from jobs.settings import Settings


@pytest.fixture
def settings(service_env: dict[str, str]) -> Settings:
    values = {name.removeprefix("EGRPO_").lower(): value for name, value in service_env.items()}
    return Settings(**values, s3_public_endpoint=values["s3_endpoint"], max_body_bytes=100_000)


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
