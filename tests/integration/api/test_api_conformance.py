"""Requests made from the OpenAPI document, right ones and wrong ones, against the application on real servers.

No answer is a 5xx, and every answer is one that the document describes: its status, its media type, its headers, its
schema. `make test` sends a few requests to each operation, always the same; `EXAMPLES=100` sends so many, by chance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from api_bench import Bench
from belongings import Belongings
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from pydantic import SecretStr
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from api.main import create_app
from jobs.sealing import new_key
from jobs.settings import Settings

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# Types that are longer to name than their checks.
Case = Any
Operation = Any


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    changes = {
        "secret_keys": SecretStr(new_key()),
        "rate_limit_per_minute": 0,
        "max_wait_seconds": 0.1,
        "max_body_bytes": 2**20,
    }
    with TestClient(create_app(settings.model_copy(update=changes)), raise_server_exceptions=False) as client:
        yield Bench(client, settings)


def operations(bench: Bench) -> list[Operation]:
    """Returns the operations, those last that take away what others need."""
    schema = schemathesis.openapi.from_dict(bench.client.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return sorted(found, key=lambda operation: operation.method == "delete")


@pytest.mark.timeout(3600 if EXAMPLES else 300)
def test_every_answer_is_one_that_the_document_describes(bench: Bench) -> None:
    mine, key = Belongings(bench), bench.key_with("*", "admin")
    wrong: list[str] = []
    for operation in operations(bench):
        names = re.findall(r"{(\w+)}", operation.path)
        known = {name: mine[name] for name in names if name not in ("model_id", "type")}
        for strategy in (
            operation.as_strategy(GenerationMode.POSITIVE, path_parameters=known or None),
            operation.as_strategy(GenerationMode.NEGATIVE),
        ):
            try:
                _send(bench.client, strategy, bench.auth(key))
            except Unsatisfiable:
                continue  # There are no wrong requests for it.
            except FailureGroup as error:  # Each operation is looked at, whatever is wrong with others.
                wrong.append(f"{operation.method.upper()} {operation.path}: {error}")
    assert not wrong, "\n\n".join(wrong)


def _send(client: TestClient, strategy: Any, headers: dict[str, str]) -> None:
    @hypothesis_settings(
        max_examples=EXAMPLES or 3,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def send(case: Case) -> None:
        arguments = case.as_transport_kwargs(base_url="http://testserver", headers=headers)
        renamed = {"content" if name == "data" else name: value for name, value in arguments.items()}
        response = client.request(
            **{name: value for name, value in renamed.items() if name != "cookies"}, follow_redirects=False
        )
        is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
        # OpenAPI 3.1 has no words for the events of a stream.
        case.validate_response(response, checks=CHECKS[:-1] if is_stream else CHECKS)

    send()
