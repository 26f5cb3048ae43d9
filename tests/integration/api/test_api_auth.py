"""Keys: every route is called without one, and with such as are not valid."""

from __future__ import annotations

from typing import Any

from api_bench import Bench, assert_problem
from sqlalchemy import select, update

from jobs import api_keys
from jobs.tables import APIKey

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"}


def operations(bench: Bench) -> list[tuple[str, str]]:
    """Returns method and path of every operation, from the document that clients see."""
    paths: dict[str, Any] = bench.client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_every_route_but_health_wants_a_key(bench: Bench) -> None:
    called = 0
    for method, path in operations(bench):
        if path in OPEN:
            continue
        response = bench.client.request(method, path)
        body = assert_problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer"), body
        called += 1
    assert called >= 14


def test_a_file_of_another_job_is_not_found_under_ones_own(bench: Bench) -> None:
    bench.submit()
    ids = bench.finish_files(bench.claim())
    own = bench.submit()["id"]
    assert_problem(bench.get(f"/v1/jobs/{own}/samples/{ids['sample']}/image"), 404, "not_found")
    path = f"/v1/jobs/{own}/checkpoints/{ids['checkpoint']}/files/pytorch_lora_weights.safetensors"
    assert_problem(bench.get(path), 404, "not_found")


def test_keys_that_are_not_valid(bench: Bench) -> None:
    good = bench.key
    wrong_checksum = good[:-1] + ("a" if good[-1] != "a" else "b")
    for key in ("x", "ega_", wrong_checksum, api_keys.new_key(), good.upper(), good + "\u00fc"):
        response = bench.client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}".encode()})
        assert_problem(response, 401, "unauthorized")
    assert_problem(bench.client.get("/v1/jobs", headers={"Authorization": f"Basic {good}"}), 401, "unauthorized")
    assert_problem(bench.client.get("/v1/jobs", params={"api_key": good}), 401, "unauthorized")


def test_revoked_and_expired_keys_are_refused(bench: Bench) -> None:
    assert bench.get("/v1/jobs").status_code == 200
    for column in ("revoked_at", "expires_at"):
        with bench.transaction() as session:
            session.execute(update(APIKey).values({column: "2020-01-01T00:00:00Z"}))
        assert_problem(bench.get("/v1/jobs"), 401, "unauthorized")
        with bench.transaction() as session:
            session.execute(update(APIKey).values({column: None}))
    assert bench.get("/v1/jobs").status_code == 200


def test_only_the_hash_is_stored_and_the_last_use_is_noted(bench: Bench) -> None:
    bench.get("/v1/jobs")
    with bench.transaction() as session:
        rows = list(session.scalars(select(APIKey)))
        mine = next(row for row in rows if bench.key.startswith(row.hint) and row.project_id == bench.project)
        assert all(bench.key not in str(vars(row)) for row in rows)
        assert mine.last_used_at is not None
