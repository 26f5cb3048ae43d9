"""Many requests at once over few connections: all are answered, however many wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from api_bench import Bench
from fastapi.testclient import TestClient

from api.main import create_app
from jobs.settings import Settings

BODIES = {"raw_body", "upload"}  # Dependencies that read one.


@pytest.fixture
def narrow(settings: Settings) -> Iterator[Bench]:
    """An API with two connections to the database, and forty threads that want them."""
    few = settings.model_copy(update={"database_pool_size": 1})
    with TestClient(create_app(few), raise_server_exceptions=False) as client:
        yield Bench(client, few)


def test_a_crowd_is_served_over_two_connections(narrow: Bench) -> None:
    job = narrow.submit()["id"]
    paths = [f"/v1/jobs/{job}", "/v1/jobs", f"/v1/jobs/{job}/metrics", f"/v1/jobs/{job}/events"] * 50
    with ThreadPoolExecutor(len(paths)) as crowd:
        answers = Counter(crowd.map(lambda path: narrow.get(path).status_code, paths))
    assert answers == {200: len(paths)}


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
