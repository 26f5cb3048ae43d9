"""Which scope covers which, and that no route is without one."""

from __future__ import annotations

import pytest

from api import scopes
from jobs.errors import InsufficientScope
from jobs.scopes import SCOPES, covers, require


def test_everything_is_all_but_admin() -> None:
    assert [scope for scope in SCOPES if not covers(["*"], scope)] == ["admin"]
    assert [scope for scope in SCOPES if covers(["admin"], scope)] == ["admin"]
    assert not covers(["jobs:write"], "jobs:read"), "to write is not to read"


def test_all_that_is_missing_is_named() -> None:
    require(["jobs:read"], "jobs:read")
    with pytest.raises(InsufficientScope) as caught:
        require(["jobs:read"], "keys:write", "jobs:read", "*", "keys:write")
    assert caught.value.missing_scopes == ("*", "keys:write")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/jobs/{job_id}/events", "jobs:read"),
        ("PATCH", "/v1/jobs/{job_id}", "jobs:write"),
        ("POST", "/v1/jobs/validate", "jobs:read"),
        ("POST", "/v1/jobs/{job_id}/validate", "jobs:write"),
        ("DELETE", "/v1/api-keys/{key_id}", "keys:write"),
        ("PATCH", "/v1/projects/{project_id}", "admin"),
    ],
)
def test_what_routes_need(method: str, path: str, scope: str) -> None:
    assert scopes.needed(method, path) == scope


@pytest.mark.parametrize("path", ["/v1/new-things", "/v1", "/v2/jobs", "/", "", "/jobs/v1/jobs"])
def test_a_route_that_nobody_thought_of_is_for_nobody(path: str) -> None:
    with pytest.raises(LookupError, match="does not say which scope"):
        scopes.needed("GET", path)
