"""The API without servers: what it imports, how it describes itself, what its small parts do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from api.__main__ import openapi_text
from api.downloads import StoredObject, byte_range
from api.hints import Hints
from api.main import create_app
from api.openapi import _DESCRIPTIONS
from jobs.errors import RangeNotSatisfiable
from jobs.settings import Settings

SETTINGS = Settings(
    database_url="postgresql+psycopg://u:p@127.0.0.1:1/d",
    broker_url="redis://127.0.0.1:1/0",
    s3_endpoint="http://127.0.0.1:1",
    s3_access_key="a",
    s3_secret_key="b",
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(SETTINGS).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


@pytest.mark.parametrize("module", ["api.main", "jobs.spec", "jobs.__main__", "migrations.__main__"])
def test_no_torch_and_nothing_made_at_import(module: str) -> None:
    code = (
        f"import sys, threading, {module}; "
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'worker', 'egrpo_client'} & set(sys.modules); "
        "sys.exit(f'{heavy} {threading.active_count()}' if heavy or threading.active_count() > 1 else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_plan_is_counted_where_there_is_no_numpy() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None; import api.validation.service; from egrpo.methods import METHODS; "
        "from egrpo.schedule import shifted_sigmas; "
        "specs = [kind(type=name, shift=3) for name, kind in METHODS.items()]; "
        "assert all(spec.network_evaluations(spec.plan(shifted_sigmas(16, 3))) for spec in specs)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_openapi_is_3_1_with_unique_operation_ids(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert document["openapi"].startswith("3.1")
    assert len(ids) == len(set(ids)) >= 15
    assert all(id_.isidentifier() and "_" not in id_ for id_ in ids), "chosen, not generated"


def test_every_error_answer_is_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        statuses = {status for status in operation["responses"] if status >= "400"}
        if name != "GET /healthz":
            assert {"500", "503"} <= statuses, name
        for status in statuses:
            content = operation["responses"][status]["content"]
            assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}, (
                name,
                status,
            )
        assert "default" not in operation["responses"]


def test_every_operation_says_who_may_call_it(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"] == {
        "APIKey": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer ega_…`"}
    }
    for name, operation in operations(document):
        is_open = name in ("GET /healthz", "GET /readyz")
        assert ("security" in operation) == (not is_open), name
        assert is_open or "401" in operation["responses"], name


def test_the_body_of_a_job_is_described_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    create = document["paths"]["/v1/jobs"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/JobSpec")
    schemas = document["components"]["schemas"]
    assert "learning_rate" in schemas["TrainingSpec"]["properties"]
    assert "HTTPValidationError" not in schemas

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference


def test_the_document_that_is_kept_is_the_one_that_is_served() -> None:
    kept = (Path(__file__).parents[3] / "docs" / "openapi.json").read_text()
    assert kept == openapi_text(), "python -m contract write"


def test_every_problem_status_is_described() -> None:
    from jobs import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "status")]
    assert {kind.status for kind in kinds} <= set(_DESCRIPTIONS)


def test_it_answers_with_nothing_behind_it() -> None:
    """Without the lifespan, so that nothing connects: liveness and refusals need no server."""
    client = TestClient(create_app(SETTINGS))
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/v1/jobs").status_code == 401
    assert client.get("/v1/jobs", headers={"Authorization": "Bearer ega_typo"}).status_code == 401


def test_hints_never_fail() -> None:
    hints = Hints("redis://127.0.0.1:1/0")
    hints.send()
    with pytest.raises(ConnectionError):
        hints.ping()
    hints.close()


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_ranges_are_what_a_slice_says(size: int, start: int, end: int) -> None:
    data = bytes(range(size))
    for header, expected in (
        (f"bytes={start}-{end}", data[start : end + 1]),
        (f"bytes={start}-", data[start:]),
        (f"bytes=-{end}", data[size - min(end, size) :]),
    ):
        try:
            found = byte_range(header, size)
        except RangeNotSatisfiable:
            assert expected == b""
            continue
        if found is None:
            assert header == f"bytes={start}-{end}"
            assert end < start
        else:
            assert data[found[0] : found[1] + 1] == expected
            assert expected


@pytest.mark.parametrize("header", [None, "", "bytes", "bytes=", "bytes=-", "bytes=1-2,3-4", "items=0-1", "bytes=a-b"])
def test_other_range_headers_mean_the_whole(header: str | None) -> None:
    assert byte_range(header, 10) is None


def test_only_inert_types_are_sent_as_such() -> None:
    def media_type(name: str, content_type: str | None = None) -> str:
        return StoredObject("k", name, 1, "00", content_type=content_type).media_type

    assert media_type("report.json") == "application/json"
    assert media_type("x.html") == "application/octet-stream"
    assert media_type("x.png", "text/html") == "application/octet-stream"
    assert media_type("x.svg", "image/svg+xml") == "application/octet-stream"
    assert media_type("a.safetensors") == "application/octet-stream"
