"""What an API key may do. Which route needs which scope is said in `api.scopes`.

A scope to write does not include the one to read. `*` stands for every scope of the key's project, those of later
versions too; `admin`, which reaches beyond the project, is never included.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from jobs.errors import InsufficientScope

Scope = Literal[
    "*",
    "admin",
    "adapters:read",
    "adapters:write",
    "audit:read",
    "catalogue:read",
    "datasets:read",
    "datasets:write",
    "jobs:read",
    "jobs:write",
    "keys:read",
    "keys:write",
    "projects:read",
    "secrets:read",
    "secrets:write",
    "usage:read",
    "webhooks:read",
    "webhooks:write",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
EVERYTHING: Scope = "*"
ADMIN: Scope = "admin"


def covers(granted: Collection[str], needed: str) -> bool:
    """Returns whether a key with these scopes may do what needs that one."""
    return needed in granted or (EVERYTHING in granted and needed != ADMIN)


def require(granted: Collection[str], *needed: str) -> None:
    """Passes if the scopes that were granted cover all that are needed.

    Raises:
        InsufficientScope: naming those that are missing.
    """
    if missing := sorted({scope for scope in needed if not covers(granted, scope)}):
        raise InsufficientScope(f"the API key lacks {', '.join(f'`{scope}`' for scope in missing)}", missing=missing)
