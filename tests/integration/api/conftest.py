"""The API in this process over the real servers, with two projects and what a worker would have written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_bench import Bench
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
