"""What goes down comes back: the API answers all the while, quickly, and says what is missing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from api_bench import SPEC, Bench, Cable, assert_problem, returned, until, when
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.events import feed
from api.main import create_app
from jobs.settings import Settings

# What was answered by then did not hang, however busy the machine; each limit of the service is a few seconds.
QUICKLY_S = 30


@pytest.fixture(autouse=True)
def patience() -> None:
    """The limits of the service itself."""


def until_down(bench: Bench, *names: str) -> dict[str, object]:
    """Returns the answer of the readiness check that names these servers; a slow one may seem to be down before."""

    def answer() -> dict[str, object] | None:
        started = time.monotonic()
        body: dict[str, object] = bench.get("/readyz").json()
        assert time.monotonic() - started < QUICKLY_S
        return body if body["down"] == list(names) else None

    found: dict[str, object] = until(answer, f"answer that {names or 'none'} is down")
    return found


class Cables:
    """One cable to each server."""

    def __init__(self, settings: Settings) -> None:
        urls = {"database": settings.database_url, "broker": settings.broker_url, "store": settings.s3_endpoint}
        self.by_name: dict[str, Cable] = {}
        cabled: dict[str, str] = {}
        for name, url in urls.items():
            parts = urlsplit(url)
            assert parts.hostname
            assert parts.port
            self.by_name[name] = Cable(parts.hostname, parts.port)
            cabled[name] = url.replace(f":{parts.port}", f":{self.by_name[name].port}")
        self.settings = settings.model_copy(
            update={
                "database_url": cabled["database"],
                "broker_url": cabled["broker"],
                "s3_endpoint": cabled["store"],
                "s3_public_endpoint": None,
            }
        )


@pytest.fixture
def cables(settings: Settings) -> Iterator[dict[str, Cable]]:
    made = Cables(settings)
    with TestClient(create_app(made.settings), raise_server_exceptions=False) as client:
        made.bench = Bench(client, made.settings)  # type: ignore[attr-defined]
        yield made  # type: ignore[misc]
        for cable in made.by_name.values():
            cable.cut()


def test_database_down(cables: Cables) -> None:
    bench: Bench = cables.bench  # type: ignore[attr-defined]
    job = bench.submit()["id"]
    cables.by_name["database"].cut()
    for answer in (lambda: bench.get(f"/v1/jobs/{job}"), lambda: bench.post("/v1/jobs", SPEC)):
        started = time.monotonic()
        response = answer()
        assert time.monotonic() - started < QUICKLY_S
        body = assert_problem(response, 503, "database_unavailable")
        assert body["retryable"] is True
        assert response.headers["retry-after"]
    assert bench.get("/healthz").json() == {"status": "ok"}
    assert_problem(bench.get("/readyz"), 503, "not_ready")
    assert until_down(bench, "database")["checks"] == {"database": "down", "broker": "up", "store": "up"}
    cables.by_name["database"].mend()
    assert bench.get(f"/v1/jobs/{job}").status_code == 200
    assert until_down(bench)["status"] == "ready"


def test_database_down_while_somebody_waits(cables: Cables, monkeypatch: pytest.MonkeyPatch) -> None:
    bench: Bench = cables.bench  # type: ignore[attr-defined]
    job = bench.submit()["id"]
    found_nothing = returned(monkeypatch, feed, "read_all")
    started = time.monotonic()
    with when(found_nothing, cables.by_name["database"].cut):
        assert_problem(bench.get(f"/v1/jobs/{job}/events", after=1, wait=60), 503, "database_unavailable")
    assert time.monotonic() - started < QUICKLY_S


def test_broker_down(cables: Cables) -> None:
    bench: Bench = cables.bench  # type: ignore[attr-defined]
    cables.by_name["broker"].cut()
    for _ in range(2):
        started = time.monotonic()
        assert bench.post("/v1/jobs", SPEC).status_code == 201
        assert time.monotonic() - started < QUICKLY_S
    assert until_down(bench, "broker")["status"] == "degraded"
    assert bench.get("/readyz").status_code == 200
    cables.by_name["broker"].mend()
    assert bench.post("/v1/jobs", SPEC).status_code == 201
    until_down(bench)


def test_store_down(cables: Cables) -> None:
    bench: Bench = cables.bench  # type: ignore[attr-defined]
    bench.submit()
    claim = bench.claim()
    ids = bench.finish_files(claim)
    path = f"/v1/jobs/{claim.job_id}/samples/{ids['sample']}/image"
    assert bench.get(path).status_code == 200
    cables.by_name["store"].cut()
    started = time.monotonic()
    body = assert_problem(bench.get(path), 503, "store_unavailable")
    assert time.monotonic() - started < QUICKLY_S
    assert body["retryable"] is True
    assert bench.get(f"/v1/jobs/{claim.job_id}").status_code == 200
    until_down(bench, "store")
    cables.by_name["store"].mend()
    assert bench.get(path).status_code == 200


@pytest.mark.parametrize("name", ["database", "broker", "store"])
def test_readiness_does_not_hang_with_a_server_that_hangs(cables: Cables, name: str) -> None:
    bench: Bench = cables.bench  # type: ignore[attr-defined]
    until_down(bench)
    cables.by_name[name].freeze()
    for _ in range(2):
        until_down(bench, name)
    assert bench.get("/healthz").status_code == 200
    cables.by_name[name].thaw()
    until_down(bench)


def test_a_database_that_was_not_migrated_yet(bench: Bench) -> None:
    with bench.transaction() as session:
        session.execute(text("ALTER TABLE jobs RENAME COLUMN version TO later"))
    assert_problem(bench.get("/v1/jobs"), 503, "database_unavailable")
    assert assert_problem(bench.get("/readyz"), 503, "not_ready")["down"] == ["database"]
    with bench.transaction() as session:
        session.execute(text("ALTER TABLE jobs RENAME COLUMN later TO version"))
    assert bench.get("/v1/jobs").status_code == 200


def test_everything_down_from_the_start(settings: Settings) -> None:
    """The process starts, says so, and needs no restart when the servers come."""
    cables = Cables(settings)
    for cable in cables.by_name.values():
        cable.cut()
    with TestClient(create_app(cables.settings), raise_server_exceptions=False) as client:
        assert client.get("/healthz").status_code == 200
        body = assert_problem(client.get("/readyz"), 503, "not_ready")
        assert body["down"] == ["database", "broker", "store"]
        for cable in cables.by_name.values():
            cable.mend()
        bench = Bench(client, cables.settings)
        assert bench.submit()["status"] == "queued"
    for cable in cables.by_name.values():
        cable.cut()
