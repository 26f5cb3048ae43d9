"""What the client reads on this machine: spec files, the environment, the local stack's state file."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from egrpo_client.connection import Connection, find_connection, local_home
from egrpo_client.errors import NotConfiguredError, SpecFileError
from egrpo_client.spec_file import read_spec


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EGRPO_URL", raising=False)
    monkeypatch.delenv("EGRPO_API_KEY", raising=False)
    monkeypatch.setenv("EGRPO_HOME", str(tmp_path / "home"))


def write_state(status: str, pid: int | None = None) -> None:
    local_home().mkdir(exist_ok=True)
    supervisor = {"pid": pid or os.getpid()}
    state = {"status": status, "url": "http://127.0.0.1:1", "api_key": "ega_local", "supervisor": supervisor}
    (local_home() / "stack.json").write_text(json.dumps(state))


def test_seed_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("training: {seed: 42, steps: 10}\n")
    assert read_spec(path, seed=7) == {"training": {"seed": 7, "steps": 10}}
    assert read_spec(path) == {"training": {"seed": 42, "steps": 10}}


def test_seed_is_added_where_the_file_has_no_training(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: a\n")
    assert read_spec(path, seed=7) == {"name": "a", "training": {"seed": 7}}


def test_wrong_training_is_left_for_the_service_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("training: fast\n")
    assert read_spec(path, seed=7) == {"training": "fast"}


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "There is no file"), ("a: [", "is not YAML"), ("- a", "holds no mapping"), ("", "mapping")],
)
def test_unusable_file_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "spec.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecFileError, match=said):
        read_spec(path)


def test_environment_comes_before_the_local_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    write_state("running")
    assert find_connection() == Connection("http://127.0.0.1:1", "ega_local")
    monkeypatch.setenv("EGRPO_URL", "https://egrpo.example/")
    monkeypatch.setenv("EGRPO_API_KEY", "ega_remote")
    assert find_connection() == Connection("https://egrpo.example", "ega_remote")


@pytest.mark.parametrize(("present", "missing"), [("EGRPO_URL", "EGRPO_API_KEY"), ("EGRPO_API_KEY", "EGRPO_URL")])
def test_half_an_environment_names_the_other_half(monkeypatch: pytest.MonkeyPatch, present: str, missing: str) -> None:
    write_state("running")  # Another service's key must not be sent to the local stack, nor the other way round.
    monkeypatch.setenv(present, "x")
    with pytest.raises(NotConfiguredError, match=f"{missing} is not set"):
        find_connection()


def test_no_stack_and_a_stopped_stack_say_how_to_start_one() -> None:
    with pytest.raises(NotConfiguredError, match="egrpo up"):
        find_connection()
    write_state("stopped")
    with pytest.raises(NotConfiguredError, match=r"is stopped\. Start it with: egrpo up"):
        find_connection()


def test_killed_stack_is_told_from_a_running_one() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    write_state("running", pid=ended.pid)
    with pytest.raises(NotConfiguredError, match=r"is gone: it was killed\. Start it with: egrpo up"):
        find_connection()


def test_key_is_not_in_the_representation() -> None:
    assert "secret" not in repr(Connection("http://x", "ega_secret"))
