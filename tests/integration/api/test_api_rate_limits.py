"""Limits of requests, counted in the real broker by all processes, and by each for itself without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from api_bench import Bench, Cable, assert_problem
from fastapi.testclient import TestClient
from sqlalchemy import event

from api import buckets, rate_limits
from api.main import create_app
from jobs import api_keys
from jobs.settings import Settings

# What the service has, before the tests lend it their patience.
BROKER_TIMEOUT_S = buckets._TIMEOUT_S


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a day of the minute in which so many are let through: none comes back while a test runs."""
    monkeypatch.setattr(rate_limits, "_MINUTE_S", 86_400.0)


@contextmanager
def application(settings: Settings, **changes: object) -> Iterator[TestClient]:
    """Starts one more application, as another process would be."""
    with TestClient(create_app(settings.model_copy(update=changes)), raise_server_exceptions=False) as client:
        yield client


def test_a_limit_is_so_many_in_a_minute(settings: Settings) -> None:
    with application(settings, rate_limit_per_minute=6) as client:
        bench = Bench(client, settings)
        headers = client.get("/v1/models", headers=bench.auth()).headers
        assert headers["ratelimit-policy"] == '"key";q=6;w=60'
        assert headers["ratelimit"].startswith('"key";r=5;t=')
        assert 1 <= int(headers["ratelimit"].rpartition("=")[2]) <= 10, "a sixth of a minute"


@pytest.mark.usefixtures("day")
def test_all_processes_count_a_key_together(settings: Settings) -> None:
    limit = {"rate_limit_per_minute": 6}
    with application(settings, **limit) as one, application(settings, **limit) as other:
        bench = Bench(one, settings)
        for left in (5, 3, 1):
            response = one.get("/v1/models", headers=bench.auth())
            assert response.headers["ratelimit-policy"] == '"key";q=6;w=86400'
            assert response.headers["ratelimit"].startswith(f'"key";r={left};t=')
            assert other.get("/v1/nothing-there", headers=bench.auth()).status_code == 404, "no route, not counted"
            assert other.get("/v1/jobs/job_x", headers=bench.auth()).status_code == 404, "an error counts"
        for client in (one, other):
            response = client.get("/v1/models", headers=bench.auth())
            assert assert_problem(response, 429, "rate_limited")["retryable"] is True
            assert 14_000 <= int(response.headers["retry-after"]) <= 14_400, "a sixth of a day"
            assert response.headers["ratelimit"].startswith('"key";r=0;t=')
        assert other.get("/v1/models", headers=bench.auth(bench.other_key)).status_code == 200
        assert one.get("/healthz").status_code == 200


@pytest.mark.usefixtures("day")
def test_without_the_broker_each_process_counts_by_itself(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_TIMEOUT_S", BROKER_TIMEOUT_S)
    parts = urlsplit(settings.broker_url)
    cable = Cable(str(parts.hostname), int(parts.port or 0))
    url = settings.broker_url.replace(f":{parts.port}", f":{cable.port}")
    with application(settings, broker_url=url, rate_limit_per_minute=3) as client:
        bench = Bench(client, settings)
        statuses, slowest = [], 0.0
        for cut in (cable.freeze, cable.cut):
            cut()
            for _ in range(3):
                began = time.monotonic()
                statuses.append(bench.get("/v1/models").status_code)
                slowest = max(slowest, time.monotonic() - began)
        assert statuses == [200, 200, 200, 429, 429, 429]
        assert slowest < 30, "no request waits for a broker that is silent"
        cable.thaw()


@pytest.mark.usefixtures("day")
def test_an_address_with_many_wrong_keys(settings: Settings) -> None:
    with application(settings, failed_auth_per_minute=4) as client:
        bench = Bench(client, settings)

        def status(key: str) -> int:
            return client.get("/v1/models", headers=bench.auth(key)).status_code

        assert status(bench.key) == 200
        assert [status(key) for key in ("x", api_keys.new_key(), "y", api_keys.new_key())] == [401] * 4
        statements: list[str] = []
        engine = client.app.state.services.engine  # type: ignore[attr-defined]
        event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        for key in (api_keys.new_key(), "x", bench.other_key):
            response = client.get("/v1/models", headers=bench.auth(key))
            assert_problem(response, 429, "rate_limited")
            assert response.headers["ratelimit-policy"] == '"failed-auth";q=4;w=86400'
            assert int(response.headers["retry-after"]) >= 1
        assert statements == [], "unknown keys do not reach the database"
        assert status(bench.key) == 200, "one that was right a moment ago still is"
        assert client.get("/v1/models").status_code == 401, "to show none is no attempt"
