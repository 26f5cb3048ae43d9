"""What an error leaves in the log."""

import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api import problems
from jobs.errors import DatabaseUnavailable, ServiceError


@pytest.mark.parametrize(
    ("error", "cause", "has_stack"),
    [
        (ServiceError("a fault of ours"), None, True),
        (DatabaseUnavailable("lost"), OSError("reset"), True),
        (DatabaseUnavailable("too many wait"), None, False),
    ],
)
def test_an_error_is_logged_with_its_stack_unless_only_the_load_is_to_blame(
    caplog: pytest.LogCaptureFixture, error: ServiceError, cause: Exception | None, has_stack: bool
) -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    def fail() -> None:
        raise error from cause

    with caplog.at_level(logging.ERROR), TestClient(app) as client:
        assert client.get("/").status_code == error.status
    (record,) = (each for each in caplog.records if each.name == "api.problems")
    assert bool(record.exc_info) is has_stack
    assert error.detail in record.getMessage()
