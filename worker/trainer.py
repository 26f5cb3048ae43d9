"""The trainer as a process: started, listened to, stopped.

One `Trainer` is one process group with the trainer as its leader. Two things run at the same time: the trainer
produces NDJSON lines on a pipe, and a reader thread here consumes them, so that a slow database or store never fills
the pipe and stops the training. Nothing in this module knows of databases or stores, and the trainer's environment
holds none of their credentials.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.protocol import MAX_LINE_BYTES, ProtocolError, TrainerEvent, parse_event

log = logging.getLogger(__name__)

_F_SETPIPE_SZ = 1031  # <linux/fcntl.h>; absent from Python's fcntl before 3.10 and from other systems.
_PIPE_BYTES = 1 << 20  # The largest that an ordinary user may ask for; hours of events.
_STDERR_TAIL_BYTES = 16_384
# After the group is dead the pipe ends at once; only a process that left the group could hold it open.
_READER_JOIN_S = 10.0
# Between two looks at a trainer that has closed its pipe and lives on.
_MUTE_S = 0.1
_LAST_STACK_S = 0.5  # A rank of a launcher has that long to print its stacks before the next one is told to.

# fmt: off
_ALLOWED_NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH",
    "PYTHONHASHSEED", "PYTHONWARNINGS", "LD_LIBRARY_PATH", "LD_PRELOAD", "XDG_CACHE_HOME", "EGRPO_CACHE",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
})
_ALLOWED_PREFIXES = (
    "LC_", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "MALLOC_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH", "PYTORCH_",
    "TRITON_", "HF_", "TRANSFORMERS_", "DIFFUSERS_", "ACCELERATE_", "ROCR_", "HIP_",
)
# fmt: on
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "_KEY")


def trainer_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns what the trainer may see of the worker's environment.

    An allow-list, not a deny-list: a credential under a name that nobody thought of stays out too. Settings of this
    service (`EGRPO_…`) never pass; `EGRPO_CACHE` is the trainer's own.
    """
    passed = {name: value for name, value in environ.items() if _is_allowed(name)}
    # The standard library prints every thread's stack on SIGABRT and on crashes: that is how a stalled or crashed
    # trainer tells where it was, without its cooperation.
    return passed | {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of that name holds a credential."""
    return any(word in name.upper() for word in _SECRET_WORDS)


def _is_allowed(name: str) -> bool:
    return not is_secret_name(name) and (name in _ALLOWED_NAMES or name.startswith(_ALLOWED_PREFIXES))


@dataclass(frozen=True)
class TrainerExit:
    """How a trainer ended. Exactly one of `code` and `signal` is set."""

    code: int | None
    signal: int | None
    stderr_tail: str

    def __str__(self) -> str:
        if self.signal is not None:
            return f"ended by {signal.Signals(self.signal).name}"
        return f"ended with exit code {self.code}"


class Trainer:
    """One run of the trainer. Start it, watch `exited`, then `finish` it exactly once."""

    def __init__(
        self,
        command: Sequence[str],
        run_dir: Path,
        on_event: Callable[[TrainerEvent], None],
        secrets: Mapping[str, str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        is_launcher: bool = False,
    ) -> None:
        """Prepares a run; nothing is started.

        Args:
            command: The trainer's command line up to, not including, `--events-fd`.
            run_dir: The run folder; stdout and stderr go to `trainer.log` in it.
            on_event: Called in the reader thread for every event, in order. It must not block.
            secrets: What the trainer gets in its environment besides; the caller hides it in what comes back.
            environment: What it gets besides, and is no secret.
            is_launcher: Whether the command starts processes that do the work, and only waits for them.
        """
        self._command = list(command)
        self.log_path = run_dir / "trainer.log"
        self._on_event = on_event
        self._secrets = dict(secrets or {})
        self._environment = dict(environment or {})
        self._is_launcher = is_launcher
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """The process id, which is the group's id too."""
        assert self._process is not None, "the trainer was not started"
        return self._process.pid

    def start(self) -> None:
        """Starts the process in a session and group of its own, and the thread that reads its events.

        The pipe of the events is its standard input: launchers pass that on, and close all that is not standard.
        """
        read_fd, write_fd = os.pipe()
        with suppress(OSError):
            fcntl.fcntl(write_fd, _F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            with self.log_path.open("ab") as output:
                self._process = subprocess.Popen(
                    [*self._launcher(), *self._command, "--events-fd", "0"],
                    stdin=write_fd,
                    stdout=output,
                    stderr=output,
                    env=trainer_environment(os.environ) | self._environment | self._secrets,
                    start_new_session=True,
                )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self._reader = threading.Thread(target=self._read, args=(read_fd,), name="trainer-events", daemon=True)
        self._reader.start()

    @staticmethod
    def _launcher() -> list[str]:
        return [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), str(os.getpid())]

    def _read(self, read_fd: int) -> None:
        with os.fdopen(read_fd, "rb") as pipe:
            while line := pipe.readline(MAX_LINE_BYTES + 1):
                try:
                    event = parse_event(line)
                except ProtocolError as error:
                    shown = "it is not shown, because the job has secrets" if self._secrets else error
                    log.warning("event=bad_trainer_line error=%s", shown)
                    continue
                self._on_event(event)

    def exited(self) -> bool:
        """Whether the leader has ended. It stays a zombie until `finish`, so its id cannot be given to another."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, timeout_s: float) -> None:
        """Returns when the trainer's pipe is closed, which is when it has ended, or after the time."""
        assert self._reader is not None, "the trainer was not started"
        if self._reader.is_alive():
            self._reader.join(timeout_s)
        else:
            time.sleep(min(_MUTE_S, timeout_s))

    def terminate(self) -> None:
        """Asks the trainer to commit a checkpoint and end. Only the leader is asked: it knows its own children."""
        self._signal(signal.SIGTERM)

    def dump_and_abort(self) -> None:
        """Ends the trainer so that it prints the stack of every thread into its log; of several, each its own."""
        ranks = _children_of(self.pid) if self._is_launcher else []
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(rank, signal.SIGABRT)
            _wait_for_end_of(rank)  # Stacks that are printed at once are printed into each other.
        if not ranks:
            self._signal(signal.SIGABRT)

    def kill(self) -> None:
        """Ends the whole group at once, without a chance to save anything."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if not self.exited():
            os.kill(self.pid, number)

    def finish(self) -> TrainerExit:
        """Waits for the end, kills what is left of the group, and returns how the trainer ended.

        When it returns, every event that was written has been handed to `on_event`.
        """
        assert self._process is not None, "the trainer was not started"
        assert self._reader is not None, "the trainer was not started"
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        returncode = self._process.wait()
        self._reader.join(_READER_JOIN_S)
        tail = self._stderr_tail()
        if returncode < 0:
            return TrainerExit(code=None, signal=-returncode, stderr_tail=tail)
        return TrainerExit(code=returncode, signal=None, stderr_tail=tail)

    def _stderr_tail(self) -> str:
        with self.log_path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _STDERR_TAIL_BYTES)
            file.seek(start)
            if start and self._secrets:
                file.readline()  # A line that is cut may begin in the middle of one, which nobody could tell.
            return file.read().decode("utf-8", "replace").strip()


def _wait_for_end_of(pid: int) -> None:
    """Returns when a process has ended, also if nobody has asked for its status yet; after a moment in any case."""
    deadline = time.monotonic() + _LAST_STACK_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state in "ZX":
            return
        time.sleep(0.005)


def _children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # It has just ended, or there is no such file on this system.
        return []
