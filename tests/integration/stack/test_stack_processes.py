"""Processes of the stack: started with a log, stopped with all their descendants, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from egrpo_client.stack import processes
from egrpo_client.stack.errors import PortTakenError, ServerStartError
from egrpo_client.stack.ports import free_ports, is_free, keep, require_free
from egrpo_client.stack.processes import ProcessIdentity, ServerProcess, stop_process

# A server that has no core for some seconds has not failed.
PATIENCE_S = 60.0
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
# Ignores SIGTERM and has a child in a session of its own, like a worker that hangs with its trainer.
STUBBORN = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""
# Starts a server under a guard, says who is who, and waits to be killed.
STARTER = """
import sys, time
from pathlib import Path
from egrpo_client.stack.guard import Guard
from egrpo_client.stack.processes import ServerProcess
log = Path(sys.argv[1])
guard = Guard(log)
for code in sys.argv[2:]:
    server = ServerProcess("sleeper", [sys.executable, "-c", code], log, grace_s=0.5)
    guard.watch(server.identity)
    print(server.identity.pid, flush=True)
time.sleep(600)
"""


def start(code: str, log: Path, **options: float) -> ServerProcess:
    return ServerProcess("test server", [sys.executable, "-c", code], log, **options)  # type: ignore[arg-type]


def wait_for(log: Path, text: str = "\n") -> str:
    deadline = time.monotonic() + PATIENCE_S
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return log.read_text()


def wait_for_children(pid: int) -> list[int]:
    deadline = time.monotonic() + PATIENCE_S
    while not (children := psutil.Process(pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [child.pid for child in children]


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    return True


def test_a_server_stops_by_its_own_signal(tmp_path: Path) -> None:
    code = "import signal, sys; signal.signal(signal.SIGINT, lambda *a: sys.exit(0)); print('up', flush=True)\n"
    code += "while True: signal.pause()"
    argv = [sys.executable, "-c", code]
    with ServerProcess("server", argv, tmp_path / "log", stop_signal=signal.SIGINT, grace_s=PATIENCE_S) as server:
        wait_for(tmp_path / "log")
        assert server.stop()
        assert server.returncode == 0


def test_a_stubborn_server_goes_with_its_descendants(tmp_path: Path) -> None:
    server = start(STUBBORN, tmp_path / "log", grace_s=0.2)
    (child,) = wait_for_children(server.identity.pid)
    assert not server.stop()
    assert is_gone(server.identity.pid)
    assert is_gone(child)


def test_nothing_of_a_stopped_server_lives_when_it_is_said_to_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes its time to end a killed child, here half a second."""
    server = start(STUBBORN, tmp_path / "log", grace_s=0.2)
    (child,) = wait_for_children(server.identity.pid)
    send = processes._send

    def sluggish(process: psutil.Process, number: int) -> None:
        if process.pid == child:
            threading.Timer(0.5, send, (process, number)).start()
        else:
            send(process, number)

    monkeypatch.setattr(processes, "_send", sluggish)
    server.stop()
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_pid_that_was_given_to_a_stranger_is_not_touched(tmp_path: Path) -> None:
    with start(SLEEPER, tmp_path / "log") as server:
        stale = ProcessIdentity("old", server.identity.pid, server.identity.created_at - 60)
        assert stop_process(stale)
        assert server.is_running()


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of the run before\n")
    with start("import sys; sys.exit('no room left')", tmp_path / "log") as server:
        with pytest.raises(ServerStartError, match=r"(?s)ended with status 1 while starting.*no room left") as raised:
            server.wait_ready(lambda: False, PATIENCE_S)
        assert "run before" not in str(raised.value)


def test_a_server_that_stays_silent_is_named(tmp_path: Path) -> None:
    with start(SLEEPER, tmp_path / "log") as server, pytest.raises(ServerStartError, match=r"not answer within 0\.1 s"):
        server.wait_ready(lambda: False, 0.1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_a_starter_that_was_killed(tmp_path: Path, how: signal.Signals) -> None:
    argv = [sys.executable, "-c", STARTER, str(tmp_path / "log"), SLEEPER, STUBBORN]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as starter:
        try:
            assert starter.stdout is not None
            pids = [int(starter.stdout.readline()), int(starter.stdout.readline())]
            (stubborn_child,) = wait_for_children(pids[1])
        finally:
            os.kill(starter.pid, how)
    assert all(is_gone(pid) for pid in [*pids, stubborn_child])


def test_a_taken_port_names_its_holder(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    require_free(port, "the API", "Do something.")
    code = f"import socket; s = socket.create_server(('127.0.0.1', {port})); print('up', flush=True); s.accept()"
    with start(code, tmp_path / "log") as server:
        wait_for(tmp_path / "log")
        assert not is_free(port)
        said = rf"Port {port} on 127.0.0.1, needed for the API, is taken by .*pid {server.identity.pid}.*Do something\."
        with pytest.raises(PortTakenError, match=said):
            require_free(port, "the API", "Do something.")
    assert is_free(port)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(50))) == 50


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a bound port cannot be listened on by another")
def test_a_chosen_port_is_given_to_nobody_but_the_server_that_is_told_it() -> None:
    (port,) = free_ports(1)
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port))
    socket.create_server(("127.0.0.1", port)).close()
    with socket.create_server(("127.0.0.1", port)):
        assert not keep(port), "another listens on it"


def test_a_server_steps_back_with_its_threads_and_what_it_starts(tmp_path: Path) -> None:
    code = """
import os, subprocess, sys, threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("up", flush=True)
while os.nice(0) == int(sys.argv[1]):
    time.sleep(0.02)
subprocess.run([sys.executable, "-c", "import os; print('child', os.nice(0))"])
time.sleep(600)
"""
    own = os.nice(0)
    with ServerProcess("nice", [sys.executable, "-c", code, str(own)], tmp_path / "log") as server:
        wait_for(tmp_path / "log", "up")
        server.step_back(3)
        lowered = min(19, own + 3)
        assert f"child {lowered}" in wait_for(tmp_path / "log", "child")
        threads = [thread.id for thread in psutil.Process(server.identity.pid).threads()]
        assert [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads] == [lowered, lowered]
