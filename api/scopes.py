"""Which scope a route needs: the one place that says it, looked up wherever an API key is checked.

By resource, the first part of the path behind `/v1`: GET needs the first scope of its row, every other method the
second. A route that no row covers answers nobody, and the OpenAPI document cannot be made.
"""

from __future__ import annotations

from jobs.scopes import Scope

_BY_RESOURCE: dict[str, tuple[Scope, Scope]] = {
    "adapters": ("adapters:read", "adapters:write"),
    "api-keys": ("keys:read", "keys:write"),
    "audit-events": ("audit:read", "admin"),
    "datasets": ("datasets:read", "datasets:write"),
    "jobs": ("jobs:read", "jobs:write"),
    "models": ("catalogue:read", "admin"),
    "projects": ("projects:read", "admin"),
    "rewards": ("catalogue:read", "jobs:write"),  # Trying one out spends what a job would spend.
    "secrets": ("secrets:read", "secrets:write"),
    "usage": ("usage:read", "admin"),
    "webhook-endpoints": ("webhooks:read", "webhooks:write"),
}
_EXCEPTIONS: dict[tuple[str, str], Scope] = {
    ("POST", "/v1/jobs/validate"): "jobs:read",  # It stores nothing.
}


def needed(method: str, path: str) -> Scope:
    """Returns the scope that a route needs, given its method and its path with the parameters' names in it.

    Raises:
        LookupError: nobody has said it.
    """
    if (scope := _EXCEPTIONS.get((method, path))) is not None:
        return scope
    _, version, resource, *_ = *path.split("/"), "", ""
    if version != "v1" or resource not in _BY_RESOURCE:
        raise LookupError(f"api/scopes.py does not say which scope {method} {path} needs")
    read, write = _BY_RESOURCE[resource]
    return read if method in ("GET", "HEAD") else write
