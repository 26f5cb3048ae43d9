"""`egrpo up` as a user runs it: what it starts, what it refuses, and that it leaves nothing but its data."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import minio
import psutil
import pytest

from egrpo_client.stack.folder import StackFolder, StackState
from egrpo_client.stack.local import BUCKET
from egrpo_client.stack.ports import free_ports
from egrpo_client.sync.client import Client

EGRPO = [sys.executable, "-m", "egrpo_client.cli"]
# 15 s are the aim on two cores that are free, and half of that is a stop's; a test run shares them with others.
LIMIT_S = 180.0
# Two starts and two stops.
pytestmark = pytest.mark.timeout(4 * LIMIT_S)
SERVERS = ["seaweedfs", "valkey", "postgres", "api", "worker", "maintenance"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A data folder; whatever a failed test leaves running in it is stopped."""
    yield tmp_path / "home"
    if (tmp_path / "home").exists():
        egrpo("down", "--home", tmp_path / "home")


def egrpo(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [*EGRPO, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **env}, timeout=2 * LIMIT_S
    )


def start(home: Path) -> tuple[subprocess.Popen[str], StackState]:
    """Starts `egrpo up` and returns it with its state once it is ready."""
    log = home.with_suffix(".log").open("w")
    port = free_ports(1)[0]
    stack = subprocess.Popen(
        [*EGRPO, "up", "--home", str(home), "--port", str(port)], stdout=log, stderr=log, text=True
    )
    log.close()
    deadline = time.monotonic() + LIMIT_S
    while not is_ready(state := StackFolder(home).load(), stack.pid):
        assert stack.poll() is None, home.with_suffix(".log").read_text()
        assert time.monotonic() < deadline, home.with_suffix(".log").read_text()
        time.sleep(0.1)
    return stack, state


def is_ready(state: StackState, pid: int) -> bool:
    """Returns whether this stack is ready; the state of a killed one still says `running`."""
    return state.status == "running" and state.supervisor is not None and state.supervisor.pid == pid


def tree(state: StackState) -> list[psutil.Process]:
    """Returns every process that belongs to the stack, its supervisor and the guard included."""
    assert state.supervisor is not None
    root = psutil.Process(state.supervisor.pid)
    return [root, *root.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    """Returns whether all of them end within a minute; a zombie has ended."""
    deadline = time.monotonic() + 60
    while any(process.is_running() and of(process, psutil.Process.status) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def of(process: psutil.Process, ask: Callable[[psutil.Process], Any]) -> Any:
    """Returns what a process tells of itself; None if it has ended, as connections to a database do at any moment."""
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else ask(process)
    except psutil.NoSuchProcess:
        return None


def store(state: StackState) -> minio.Minio:
    keys = state.secrets["s3_access"], state.secrets["s3_secret"]
    return minio.Minio(f"127.0.0.1:{state.ports['s3']}", *keys, secure=False, region="us-east-1")


def models(state: StackState) -> list[Any]:
    with Client(str(state.url), str(state.api_key)) as client:
        return list(client.list_models())


def test_stack_starts_listens_on_loopback_only_and_keeps_its_data(home: Path) -> None:
    stack, state = start(home)
    processes = tree(state)
    assert [identity.name for identity in state.processes] == SERVERS
    connections = [c for p in processes for c in of(p, psutil.Process.net_connections) or ()]
    listening = [connection for connection in connections if connection.status == psutil.CONN_LISTEN]
    assert len(listening) >= 4 + 8 - 1
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    assert (home / "stack.json").stat().st_mode & 0o777 == 0o600
    assert models(state)
    store(state).put_object(BUCKET, "kept", io.BytesIO(b"x" * 100_000), 100_000)

    stack.send_signal(signal.SIGINT)
    assert stack.wait(LIMIT_S) == 0
    assert all_gone(processes)
    said = home.with_suffix(".log").read_text()
    stops = [line.removeprefix("stopping ") for line in said.splitlines() if line.startswith("stopping ")]
    order = [name for name in stops if name in ("postgres", "valkey", "seaweedfs")]
    assert order == ["postgres", "valkey", "seaweedfs"]
    assert stops.index("worker") < stops.index("api") < stops.index("postgres")

    again, second = start(home)
    assert second.api_key == state.api_key
    assert models(second)
    answer = store(second).get_object(BUCKET, "kept")
    assert answer.read() == b"x" * 100_000
    answer.close()
    again.terminate()
    assert again.wait(LIMIT_S) == 0


def test_nothing_survives_a_killed_stack_and_the_next_one_starts(home: Path) -> None:
    stack, state = start(home)
    processes = tree(state)
    stack.kill()
    stack.wait()
    assert all_gone(processes)
    again, _ = start(home)
    again.terminate()
    assert again.wait(LIMIT_S) == 0


def test_the_next_stack_stops_what_a_killed_one_left_when_its_guard_was_killed_too(home: Path) -> None:
    stack, state = start(home)
    processes = tree(state)
    for process in processes:
        if "egrpo_client.stack.guard" in (of(process, psutil.Process.cmdline) or ()):
            process.kill()
    stack.kill()
    stack.wait()
    assert len(state.living()) == len(SERVERS)
    again, _ = start(home)
    assert all_gone(processes)
    again.terminate()
    assert again.wait(LIMIT_S) == 0


def test_a_killed_server_is_started_again(home: Path) -> None:
    stack, state = start(home)
    killed = state.processes[SERVERS.index("valkey")]
    psutil.Process(killed.pid).kill()
    deadline = time.monotonic() + LIMIT_S
    while len(StackFolder(home).load().living()) < len(SERVERS) or killed in StackFolder(home).load().processes:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert stack.poll() is None
    stack.terminate()
    assert stack.wait(LIMIT_S) == 0


def test_detached_stack_is_shown_refuses_a_second_and_goes_down(home: Path) -> None:
    port = str(free_ports(1)[0])
    up = egrpo("up", "--detach", "--home", home, "--port", port)
    assert up.returncode == 0, up.stdout + up.stderr
    status = egrpo("status", "--json", "--home", home)
    assert status.returncode == 0
    shown = json.loads(status.stdout)
    assert shown["url"] == f"http://127.0.0.1:{port}"
    assert [process["name"] for process in shown["processes"] if process["is_running"]] == SERVERS

    listed = egrpo("models", "--json", EGRPO_HOME=str(home))
    assert listed.returncode == 0, listed.stderr
    refused = egrpo("submit", spec_file(home), EGRPO_HOME=str(home))
    assert refused.returncode == 2
    for pointer in ("/base_model", "/training/steps", "/surprise"):
        assert pointer in refused.stderr

    second = egrpo("up", "--home", home)
    assert second.returncode == 1
    assert f"already runs in {home} at http://127.0.0.1:{port}" in second.stderr

    processes = tree(StackFolder(home).load())
    down = egrpo("down", "--home", home)
    assert down.returncode == 0
    assert all_gone(processes)
    assert egrpo("status", "--home", home).returncode == 1


def spec_file(home: Path) -> Path:
    """A spec with three errors, in three places."""
    path = home.with_suffix(".yaml")
    path.write_text(
        "base_model: no-such-model\nprompts: {inline: [a red circle]}\nsurprise: 1\n"
        "reward: {components: [{type: shapes}]}\ntraining: {steps: -1}\n"
    )
    return path


def test_taken_port_is_named_with_its_holder_and_nothing_starts(home: Path) -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
    with subprocess.Popen(
        [sys.executable, "-c", code + "time.sleep(600)"], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            port = holder.stdout.readline().strip()
            up = egrpo("up", "--home", home, "--port", port)
        finally:
            holder.kill()
    assert up.returncode == 1
    assert f"Port {port} on 127.0.0.1, needed for the API, is taken by" in up.stderr
    assert f"(pid {holder.pid})" in up.stderr
    assert "--port" in up.stderr
    assert not (home / "postgres").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("stack.json", '{"format": 99}', "has format 99"),
        ("stack.json", "{", "cannot be read"),
        ("thesis.tex", "", "is not empty and holds no stack.json"),
    ],
)
def test_folder_that_is_not_ours_is_refused_untouched(home: Path, name: str, content: str, said: str) -> None:
    home.mkdir()
    (home / name).write_text(content)
    for arguments in (("up",), ("up", "--detach")):
        up = egrpo(*arguments, "--home", home)
        assert up.returncode == 1
        assert said in up.stderr
        assert "Traceback" not in up.stderr
    assert [path.name for path in home.iterdir()] == [name]
