"""Both clients, without the pauses that they make between tries."""

from __future__ import annotations

import pytest
from scripted_service import HALVES, Half


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for half in ("aio", "sync"):
        for module in ("follow", "files"):
            monkeypatch.setattr(f"egrpo_client.{half}.{module}.BACKOFF_S", 0.0)


@pytest.fixture(params=HALVES)
def half(request: pytest.FixtureRequest) -> Half:
    """The synchronous client, then the asynchronous one."""
    return request.param()
