"""The headers that keep a browser from doing something with an answer."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import MutableHeaders

from api.main import create_app
from api.security_headers import add_security_headers
from jobs.settings import Settings

SETTINGS = Settings(
    database_url="postgresql+psycopg://u:p@127.0.0.1:1/d",
    broker_url="redis://127.0.0.1:1/0",
    s3_endpoint="http://127.0.0.1:1",
    s3_access_key="a",
    s3_secret_key="b",
)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(create_app(SETTINGS), raise_server_exceptions=False)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/v2/nothing", "/v1/%00", "/v1/jobs"])
def test_every_answer_has_them_and_errors_too(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "strict-transport-security" not in headers
    assert "access-control-allow-origin" not in headers


def test_only_the_documentation_page_may_run_a_script(client: TestClient) -> None:
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert page.text.count("https://cdn.jsdelivr.net/") == 2
    assert "script-src https://cdn.jsdelivr.net" in policy
    assert "script-src" not in client.get("/openapi.json").headers["content-security-policy"]


def test_https_is_to_stay_https(client: TestClient) -> None:
    headers = client.get("https://testserver/openapi.json").headers
    assert headers["strict-transport-security"] == "max-age=31536000"


def test_an_endpoint_keeps_its_own_cache_control() -> None:
    headers = MutableHeaders({"Cache-Control": "private, no-cache"})
    add_security_headers({"path": "/v1/jobs", "scheme": "http"}, headers)
    assert headers["cache-control"] == "private, no-cache"
