"""Starting a server in its own session with a log file, and stopping it by identity.

A process is identified by pid **and** start time: a pid alone may have been given to a stranger since. Stopping first
asks (the server's own stop signal), waits, then kills whatever of it and of its descendants is left.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from egrpo_client.stack.errors import ServerStartError

POLL_S = 0.02
LOG_TAIL_LINES = 15
_KILLED_WITHIN_S = 5.0
_LOWEST_PRIORITY = 19
_AUTOGROUP_TRIES, _AUTOGROUP_PAUSE_S = 4, 0.1


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """One process of the stack: who it is and how it wants to be stopped."""

    name: str
    pid: int
    created_at: float
    stop_signal: int = signal.SIGTERM
    grace_s: float = 10.0

    def find(self) -> psutil.Process | None:
        """Returns the living process, or None when it is gone (a zombie is gone)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created_at) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def stop_process(identity: ProcessIdentity, grace_s: float | None = None) -> bool:
    """Stops one process and all its descendants; returns whether it ended by itself within its grace period.

    Args:
        identity: the process; one that is gone already counts as ended by itself.
        grace_s: seconds to wait after the stop signal; the identity's own when None.
    """
    process = identity.find()
    if process is None:
        return True
    descendants = _children(process)
    _send(process, identity.stop_signal)
    graceful = _wait_until(lambda: identity.find() is None, identity.grace_s if grace_s is None else grace_s)
    descendants += [child for child in _children(process) if child not in descendants]
    leftovers = [process, *descendants]
    for leftover in leftovers:
        _send(leftover, signal.SIGKILL)
    # Whoever removes their folder next, or starts a server on it, must find nobody there.
    _wait_until(lambda: not any(map(_is_living, leftovers)), _KILLED_WITHIN_S)
    return graceful


def stop_all(identities: Sequence[ProcessIdentity], told: Callable[[str], None] = lambda name: None) -> None:
    """Stops the processes in the reverse of the order in which they were started, `told` the name of each."""
    for identity in reversed(identities):
        if identity.find() is not None:
            told(identity.name)
        stop_process(identity)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _is_living(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


class ServerProcess:
    """A running server: its process in a session of its own, its log file, and how to wait until it answers."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: int = signal.SIGTERM,
        grace_s: float = 10.0,
    ) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            self.log_start = log.tell()
            self._popen = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                cwd=cwd,
                start_new_session=True,  # Ctrl-C reaches the stack only, which stops its servers in order.
            )
        created_at = psutil.Process(self._popen.pid).create_time()
        self.identity = ProcessIdentity(name, self._popen.pid, created_at, stop_signal, grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def is_running(self) -> bool:
        """Returns whether the process lives; reaps it when it does not."""
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit status once ended, negative for a signal."""
        return self._popen.poll()

    def wait_ready(self, answers: Callable[[], bool], timeout_s: float) -> None:
        """Returns as soon as `answers()` is true.

        Args:
            answers: a quick probe of the server.
            timeout_s: seconds until the server counts as stuck.

        Raises:
            ServerStartError: the process ended, or stayed silent for `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not answers():
            if not self.is_running():
                raise ServerStartError(f"{self.name} ended with status {self.returncode} while starting.{self._tail()}")
            if time.monotonic() > deadline:
                raise ServerStartError(f"{self.name} did not answer within {timeout_s:g} s.{self._tail()}")
            time.sleep(POLL_S)

    def step_back(self, niceness: int) -> None:
        """Lowers the priority of the server below ours, with its threads and with all that it will start.

        Linux may share cores between sessions first and between processes second ("autogroup"): a process's own
        priority then means nothing to another session, so the session's is set too, where there is one.

        Args:
            niceness: how far it steps back where both want to compute; 0 is not at all, 19 the most.
        """
        lowered = min(_LOWEST_PRIORITY, os.getpriority(os.PRIO_PROCESS, 0) + niceness)
        for thread in self._threads():
            with contextlib.suppress(OSError):  # It has ended meanwhile.
                os.setpriority(os.PRIO_PROCESS, thread, lowered)
        for _ in range(_AUTOGROUP_TRIES):
            try:
                Path(f"/proc/{self.identity.pid}/autogroup").write_text(str(niceness))
            except BlockingIOError:  # The kernel takes one such wish in a tenth of a second.
                time.sleep(_AUTOGROUP_PAUSE_S)
            except OSError:  # There are no autogroups here.
                return
            else:
                return

    def _threads(self) -> list[int]:
        process = self.identity.find()
        if process is None:
            return []
        members = [process, *_children(process)]
        with contextlib.suppress(psutil.NoSuchProcess):
            return [thread.id for member in members for thread in member.threads()]
        return [self.identity.pid]

    def stop(self, grace_s: float | None = None) -> bool:
        """Stops the server and its descendants; returns whether it ended by itself."""
        graceful = stop_process(self.identity, grace_s)
        self._popen.wait()
        return graceful

    def _tail(self) -> str:
        with self.log_path.open("rb") as log:
            log.seek(self.log_start)
            lines = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        shown = "".join(f"\n    {line}" for line in lines)
        return (
            f" Its log is {self.log_path}; it ends with:{shown}" if lines else f" Its log, {self.log_path}, is empty."
        )
