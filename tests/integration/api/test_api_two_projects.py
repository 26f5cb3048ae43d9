"""The wall between projects: every route of the document is called with a second project's key.

A route that none of the tables below knows fails the test: whoever adds one says here what it must hide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from api_bench import SPEC, Bench, assert_problem
from belongings import BODIES, Belongings
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.main import create_app
from jobs.sealing import new_key
from jobs.settings import Settings

# The same for everybody.
OF_NOBODY = {"/healthz", "/readyz", "/v1/models", "/v1/models/{model_id}", "/v1/rewards", "/v1/rewards/{type}"}
# These make something of the caller's own, and name nothing that is there already.
MAKES_ITS_OWN = {"createApiKey", "createDataset", "createProject", "createSecret", "createWebhookEndpoint"}
# These make something out of what they name in the body.
NAMES_THINGS = {"createJob", "validateJob"}
FOR_ADMINISTRATORS = {"updateProject"}


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with_key = settings.model_copy(update={"secret_keys": SecretStr(new_key())})
    with TestClient(create_app(with_key), raise_server_exceptions=False) as client:
        yield Bench(client, with_key)


def operations(bench: Bench) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields method, path and description of every operation, from the document that clients see."""
    for path, methods in bench.client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_no_route_shows_or_changes_what_is_anothers(bench: Bench) -> None:
    mine = Belongings(bench)
    for method, path, operation in operations(bench):
        if path in OF_NOBODY or operation["operationId"] in MAKES_ITS_OWN | NAMES_THINGS:
            continue
        names = re.findall(r"{(\w+)}", path)
        url = path.format(**{name: mine[name] for name in names})
        body = BODIES[operation["operationId"]] if "requestBody" in operation else None
        response = bench.client.request(method, url, json=body, headers=bench.auth(bench.other_key))
        if operation["operationId"] in FOR_ADMINISTRATORS:
            assert_problem(response, 403, "insufficient_scope")
        elif names:
            assert_problem(response, 404, "not_found")
        else:
            assert (method, response.status_code) == ("GET", 200), f"{method} {path}: {response.text}"
            assert not [each for each in mine.ids() if each in response.text], f"{path} shows another project's things"
        if method == "GET":  # The URL is a real one: its owner gets an answer.
            owner = bench.client.request(method, url, headers=bench.auth())
            assert owner.status_code == 200, url


def test_no_route_takes_what_is_anothers(bench: Bench) -> None:
    mine = Belongings(bench)
    other = {**SPEC, "secrets": {"HF_TOKEN": mine["secret_id"]}}, {**SPEC, "prompts": {"dataset": mine["dataset_id"]}}
    paths = [path for _, path, operation in operations(bench) if operation["operationId"] in NAMES_THINGS]
    assert len(paths) == len(NAMES_THINGS)
    for path in paths:
        for spec in other:
            refused = bench.post(path, spec, key=bench.other_key)
            assert_problem(refused, 422, "invalid_request")
            nothing = bench.post(path, {**spec, **nonexistent(spec)}, key=bench.other_key)
            assert detail(refused) == detail(nothing), "it says no more than of one that is not there"
            assert bench.post(path, spec).status_code in (200, 201), "its owner may"


def nonexistent(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns what the spec names, with ids that were never given out."""
    if "secrets" in spec:
        return {"secrets": {"HF_TOKEN": "sec_" + "0" * 26}}
    return {"prompts": {"dataset": "ds_" + "0" * 26}}


def detail(response: Any) -> list[tuple[str, str]]:
    """Returns what an answer says, without the ids in it."""
    return [
        (error["pointer"], re.sub(r"[a-z]+_[0-9a-z]{26}", "…", error["detail"])) for error in response.json()["errors"]
    ]
