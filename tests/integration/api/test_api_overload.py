"""Many requests at once over few connections: all are answered, however many wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from api_bench import PATIENCE_S, SPEC, Bench, until
from fastapi.testclient import TestClient
from sqlalchemy import Connection, text

from api.main import create_app
from jobs.db import make_engine
from jobs.settings import Settings

BODIES = {"raw_body", "upload"}  # Dependencies that read one.


@pytest.fixture
def narrow(settings: Settings) -> Iterator[Bench]:
    """An API with two connections to the database, and forty threads that want them."""
    few = settings.model_copy(update={"database_pool_size": 1})
    with TestClient(create_app(few), raise_server_exceptions=False) as client:
        yield Bench(client, few)


@pytest.fixture
def outside(settings: Settings) -> Iterator[Connection]:
    """A connection that the API knows nothing of."""
    engine = make_engine(settings)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_a_crowd_is_served_over_two_connections(narrow: Bench) -> None:
    job = narrow.submit()["id"]
    paths = [f"/v1/jobs/{job}", "/v1/jobs", f"/v1/jobs/{job}/metrics", f"/v1/jobs/{job}/events"] * 25
    requests = [partial(narrow.get, path) for path in paths] + [partial(narrow.post, "/v1/jobs", SPEC)] * 100
    with ThreadPoolExecutor(len(requests)) as crowd:
        answers = Counter(crowd.map(lambda request: request().status_code, requests))
    assert answers == {200: 100, 201: 100}


def test_a_crowd_that_waits_in_the_database_leaves_a_connection_and_a_thread(
    narrow: Bench, outside: Connection
) -> None:
    """Sixty requests that the database lets wait: they hold one of two connections, and no thread but its own."""
    with ThreadPoolExecutor(61) as crowd:
        outside.execute(text("LOCK TABLE jobs IN SHARE MODE"))
        posts = [crowd.submit(narrow.post, "/v1/jobs", SPEC) for _ in range(60)]
        until(lambda: num_blocked(outside) > 0, "request that waits for the lock")
        catalogue = crowd.submit(narrow.get, "/v1/models")
        try:
            assert catalogue.result(PATIENCE_S / 2).status_code == 200
            assert num_blocked(outside) == 1
        finally:
            outside.rollback()
        assert Counter(post.result().status_code for post in posts) == {201: 60}


def num_blocked(outside: Connection) -> int:
    """Returns how many of the application's connections wait for a lock."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    outside.execute(text("SELECT pg_stat_clear_snapshot()"))  # Else a transaction sees what it saw first.
    return int(outside.execute(text(statement)).scalar_one())


def test_no_session_is_open_while_a_body_comes(bench: Bench) -> None:
    """Who sends slowly would keep a session from others."""
    routers = [getattr(each, "original_router", None) for each in bench.client.app.routes]  # type: ignore[attr-defined]
    routes = [route for router in routers if router is not None for route in router.routes]
    calls_of = {
        f"{route.methods} {route.path}": [each.call for each in route.dependant.dependencies] for route in routes
    }
    orders = {name: [call.__name__ for call in calls] for name, calls in calls_of.items()}
    with_both = {name: calls for name, calls in orders.items() if "session_of" in calls and BODIES & set(calls)}
    assert len(with_both) > 8
    late = [name for name, calls in with_both.items() if BODIES & set(calls[calls.index("session_of") :])]
    assert late == []
