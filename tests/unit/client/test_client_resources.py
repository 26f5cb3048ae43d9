"""`egrpo RESOURCE VERB`: every operation is a command that sends its request, and answers are shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from scripted_service import NO_PAUSE, Answering, script
from typer.testing import CliRunner, Result

from egrpo_client import Client
from egrpo_client.cli import app, exit_code
from egrpo_client.cli.completion import ids_for
from egrpo_client.cli.resources import grouped, verb_of
from egrpo_client.errors import ApiError, ClientError, SpecFileError
from egrpo_client.sync.operations import OPERATIONS

Commands = dict[str, list[str]]
Run = Callable[..., Result]
COMMAND = typer.main.get_command(app)


def commands(group: typer.Typer = app, path: tuple[str, ...] = ()) -> Commands:
    """Returns the words of the command for each operation."""
    found: Commands = {}
    for command in group.registered_commands:
        operation = getattr(command.callback, "operation", None)
        if operation is not None:
            found[operation] = [*path, str(command.name)]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        found.update(commands(inner.typer_instance, (*path, str(inner.typer_instance.info.name))))
    return found


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answering], Run]:
    """Puts a scripted service where the environment names one, and returns what runs a command."""

    def of(answer: Answering) -> Run:
        def from_environment(**_: Any) -> Client:
            return Client("http://service", "k", retries=NO_PAUSE, transport=httpx.MockTransport(answer))

        monkeypatch.setattr(Client, "from_environment", from_environment)
        return lambda *words, **options: invoke(words, **options)

    return of


@pytest.fixture(autouse=True)
def built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps typer's runner from building all commands anew for each call."""
    monkeypatch.setattr("typer.testing._get_command", lambda _: COMMAND)


def invoke(words: Sequence[str], **options: Any) -> Result:
    return CliRunner().invoke(app, words, **options)


def required(method: str) -> list[str]:
    """Returns arguments for what a command cannot be without."""
    return [f"x{number}" for number in range(OPERATIONS[method].path.count("{"))]


@pytest.mark.parametrize("method", OPERATIONS)
def test_every_operation_is_a_command_that_sends_its_request(service: Callable[[Answering], Run], method: str) -> None:
    operation = OPERATIONS[method]
    answer, requests = script(httpx.Response(418, json={"detail": "a teapot"}))
    result = service(answer)(*commands()[operation.operation_id], *required(method))
    assert isinstance(result.exception, ApiError), (result.output, result.exception)
    assert requests[0].method == operation.method
    template = re.sub(r"\\\{\w+\\\}", r"x\\d", re.escape(operation.path))
    assert re.fullmatch(template, requests[0].url.path), requests[0].url


def test_no_two_operations_have_one_name() -> None:
    names = [(resource, verb) for resource, verbs in grouped().items() for verb in verbs]
    assert len(names) == len(OPERATIONS)
    assert verb_of("listDatasetPrompts", "datasets") == "list-prompts"
    assert verb_of("createApiKey", "api-keys") == "create"
    assert verb_of("health", "health") == "health"


def test_every_command_has_its_help() -> None:
    for words in [[], *commands().values()]:
        result = invoke([*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert result.exit_code == 0, result.output
    result = invoke(["jobs", "list", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert "catalogue id, or repo@revision" in result.output


def test_rows_are_a_table_or_json(service: Callable[[Answering], Run]) -> None:
    rows = [
        {
            "id": "job_1",
            "status": "running",
            "progress": {"step": 1},
            "created_at": "2026-01-01T00:00:00Z",
            "note": None,
        }
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": rows, "has_more": False, "next_cursor": None})

    run = service(answer)
    table = run("jobs", "list", "--status", "running").output.splitlines()
    assert table[0].split() == ["ID", "STATUS", "CREATED", "AT", "NOTE"]
    assert table[1].startswith("job_1  running  202")
    assert json.loads(run("jobs", "list", "--json").output) == rows


def test_one_thing_is_lines_or_json(service: Callable[[Answering], Run]) -> None:
    thing = {"id": "ds_1", "splits": {"train": 2}, "size": 0.123456, "pinned": True, "note": None}
    run = service(lambda request: httpx.Response(200, json=thing))
    lines = run("datasets", "get", "ds_1").output.splitlines()
    assert lines == ["id      ds_1", 'splits  {"train": 2}', "size    0.1235", "pinned  yes", "note    "]
    assert json.loads(run("datasets", "get", "ds_1", "--json").output) == thing


def test_fields_are_options_and_go_before_those_of_a_file(service: Callable[[Answering], Run], tmp_path: Path) -> None:
    answer, requests = script(*[httpx.Response(200, json={})] * 3)
    run = service(answer)
    (tmp_path / "body.yaml").write_text("name: of the file\nmetadata: {a: b}\n")
    run("jobs", "update", "job_1", "--body", str(tmp_path / "body.yaml"), "--name", "mine", "--if-match", '"3"')
    assert json.loads(requests[0].content) == {"name": "mine", "metadata": {"a": "b"}}
    assert requests[0].headers["If-Match"] == '"3"'
    run("jobs", "update", "job_1", "--metadata", "ticket=ML-88", "--metadata", "empty=")
    assert json.loads(requests[1].content) == {"metadata": {"ticket": "ML-88", "empty": ""}}
    run("datasets", "create", "--body", "-", "--splits", '{"train": ["a"]}', input='{"name": "s"}')
    assert json.loads(requests[2].content) == {"name": "s", "splits": {"train": ["a"]}}


def test_pairs_are_options_and_go_into_the_query(service: Callable[[Answering], Run]) -> None:
    answer, requests = script(httpx.Response(200, json={"data": [], "has_more": False, "next_cursor": None}))
    run = service(answer)
    run("jobs", "list", "--metadata", "ticket=ML-88", "--metadata", "a=b=c", "--order", "asc", "--limit", "5")
    query = {"metadata[ticket]": "ML-88", "metadata[a]": "b=c", "order": "asc", "limit": "5"}
    assert dict(requests[0].url.params) == query
    assert "metadata[ticket]" in invoke(["jobs", "list", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output


def test_a_file_is_sent_as_it_is(service: Callable[[Answering], Run], tmp_path: Path) -> None:
    answer, requests = script(httpx.Response(201, json={"id": "ds_1"}))
    run = service(answer)
    (tmp_path / "prompts.txt").write_bytes(b"a red circle\n")
    assert run("datasets", "create", "--file", str(tmp_path / "prompts.txt"), "--name", "shapes").exit_code == 0
    assert (requests[0].content, requests[0].headers["Content-Type"]) == (b"a red circle\n", "text/plain")
    assert requests[0].url.params["name"] == "shapes"
    (tmp_path / "prompts.csv").write_bytes(b"")
    result = run("datasets", "create", "--file", str(tmp_path / "prompts.csv"))
    assert isinstance(result.exception, SpecFileError)
    assert ".jsonl" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metadata", "ticket"], "--metadata ticket is not KEY=VALUE"),
        (["--body", "nowhere.yaml"], r"nowhere\.yaml cannot be read"),
        (["--body", "-"], "holds no mapping"),
    ],
)
def test_input_that_cannot_be_used_is_named(service: Callable[[Answering], Run], words: list[str], said: str) -> None:
    result = service(script()[0])("jobs", "update", "job_1", *words, input="- a\n")
    assert isinstance(result.exception, ClientError)
    assert re.search(said, str(result.exception))
    assert exit_code(result.exception) == 2


def test_a_secret_never_stands_on_the_command_line(tmp_path: Path) -> None:
    from egrpo_client.cli.bodies import Body

    body = Body({"value": str, "name": str}, takes_file=False, is_required=True, shared=frozenset())
    with pytest.raises(SpecFileError, match=r"--value would be seen by everybody"):
        body.take({"body": None, "value": "hf_secret", "name": None})
    (tmp_path / "token").write_text("hf_secret\n")
    taken = body.take({"body": None, "value": f"@{tmp_path / 'token'}", "name": "hub"})
    assert taken == {"body": {"value": "hf_secret", "name": "hub"}}


def test_bytes_go_to_a_file_and_other_formats_to_the_output(
    service: Callable[[Answering], Run], tmp_path: Path
) -> None:
    image = b"\x89PNG"
    headers = {"ETag": f'"sha256:{hashlib.sha256(image).hexdigest()}"'}
    images = [httpx.Response(200, content=image, headers=headers) for _ in range(3)]
    answer, requests = script(*images, httpx.Response(200, text="step\n1\n"))
    run = service(answer)
    assert run("samples", "get-image", "job_1", "smp_1").stdout_bytes == image
    path = tmp_path / ("s" * 100 + ".png")
    result = run("samples", "get-image", "job_1", "smp_1", "--output", str(path))
    assert result.output == f"{path}  4 bytes  sha256 {hashlib.sha256(image).hexdigest()[:12]}…\n"
    assert path.read_bytes() == image
    assert run("metrics", "list", "job_1", "--format", "csv", "--names", "reward_mean").output == "step\n1\n"
    assert dict(requests[3].url.params) == {"format": "csv", "names": "reward_mean"}


def test_a_deletion_asks_at_a_terminal_only(
    service: Callable[[Answering], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, requests = script(*[httpx.Response(204)] * 3)
    run = service(answer)
    assert run("datasets", "delete", "ds_1").output == "done\n"
    monkeypatch.setattr("egrpo_client.cli.commands._is_terminal", lambda: True)
    assert run("datasets", "delete", "ds_1", input="n\n").exit_code == 1
    assert run("datasets", "delete", "ds_1", input="y\n").exit_code == 0
    assert run("datasets", "delete", "ds_1", "--yes").exit_code == 0
    assert len(requests) == 3


def test_a_stream_is_printed_line_by_line(service: Callable[[Answering], Run]) -> None:
    text = 'id: 1\nevent: log\ndata: {"seq": 1}\n\nevent: done\ndata: {}\n\n'
    run = service(lambda request: httpx.Response(200, text=text, headers={"content-type": "text/event-stream"}))
    lines = [json.loads(line) for line in run("events", "stream", "job_1").output.splitlines()]
    assert lines == [{"event": "log", "data": {"seq": 1}}, {"event": "done", "data": {}}]


def test_ids_are_completed_from_the_service_and_nothing_is_said_when_it_is_away(
    service: Callable[[Answering], Run],
) -> None:
    page = {"data": [{"id": "job_1a"}, {"id": "job_2b"}], "has_more": False, "next_cursor": None}
    complete = ids_for("job_id")
    assert complete is not None
    service(lambda request: httpx.Response(200, json=page))
    assert complete("job_1") == ["job_1a"]
    service(lambda request: httpx.Response(401, json={}))
    assert complete("") == []
    assert ids_for("sample_id") is None


def test_completion_is_offered_to_the_shell() -> None:
    env = {"_EGRPO_COMPLETE": "complete_bash", "COMP_WORDS": "egrpo datasets l", "COMP_CWORD": "2"}
    result = invoke([], env=env, prog_name="egrpo")
    assert result.output.split() == ["list", "list-prompts"]


def test_who_stops_watching_is_told_that_the_job_goes_on(service: Callable[[Answering], Run]) -> None:
    def interrupted(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    result = service(interrupted)("watch", "job_1")
    assert result.exit_code == 130
    assert "the job goes on. Again with: egrpo watch job_1" in " ".join(result.stderr.split())


def test_the_short_commands_are_there_too(service: Callable[[Answering], Run], tmp_path: Path) -> None:
    answer, requests = script(*[httpx.Response(200, json={"id": "job_1", "status": "queued"})] * 2)
    run = service(answer)
    assert run("retry", "job_1").output == "job_1 queued\n"
    (tmp_path / "spec.yaml").write_text("base_model: tiny\n")
    assert "queued" in run("validate", str(tmp_path / "spec.yaml")).output
    assert [request.url.path for request in requests] == ["/v1/jobs/job_1/retry", "/v1/jobs/validate"]
