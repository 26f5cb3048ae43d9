"""The data folder of a local stack: what is where, who holds it, and the state file that other commands read.

stack.json     format, URL and key of the API, ports, secrets, processes; 0600
stack.lock     locked by the process that runs the stack
postgres/ valkey/ s3/ work/ logs/
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from egrpo_client.stack import postgres
from egrpo_client.stack.errors import AlreadyRunningError, DataFolderError, DiskSpaceError
from egrpo_client.stack.processes import ProcessIdentity

# Raised whenever an older egrpo could not use a newer folder, or the other way round.
FORMAT = 1
# An empty stack takes 0.1 GB; a job of the example model writes about as much. Two leave room to keep a few.
REQUIRED_FREE_GB = 2.0


@dataclasses.dataclass
class StackState:
    """What a stack keeps between runs, and what it tells other commands while it runs."""

    format: int = FORMAT
    status: str = "stopped"  # stopped | starting | running | stopping
    url: str | None = None
    api_key: str | None = None
    ports: dict[str, int] = dataclasses.field(default_factory=dict)
    secrets: dict[str, str] = dataclasses.field(default_factory=dict)
    supervisor: ProcessIdentity | None = None
    processes: list[ProcessIdentity] = dataclasses.field(default_factory=list)

    def secret(self, name: str) -> str:
        """Returns the secret of that name, made on first use (256 bits that need no quoting)."""
        return self.secrets.setdefault(name, secrets.token_hex(32))

    def living(self) -> list[ProcessIdentity]:
        """Returns the recorded processes that still live, in the order of their start."""
        return [identity for identity in self.processes if identity.find() is not None]


class StackFolder:
    """One data folder."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.state_path = self.home / "stack.json"
        self.logs = self.home / "logs"

    def prepare(self) -> None:
        """Makes the folder ready for a start.

        Raises:
            DataFolderError: it is of another version, is somebody else's, or cannot be written.
            DiskSpaceError: its disk is too full.
        """
        self._check_ours()
        self.load()
        postgres.check_version(self.home / "postgres")
        try:
            for folder in (self.home, self.logs, self.home / "work"):
                folder.mkdir(parents=True, exist_ok=True)
            self.home.chmod(0o700)
        except OSError as error:
            raise DataFolderError(
                f"The data folder {self.home} cannot be made: {error.strerror}. "
                "Choose another one with EGRPO_HOME=… or --home."
            ) from error
        self._check_disk()

    def load(self) -> StackState:
        """Returns the state; a fresh one where there is none.

        Raises:
            DataFolderError: another version of egrpo wrote it, or it is not readable.
        """
        try:
            raw = json.loads(self.state_path.read_text())
        except FileNotFoundError:
            return StackState()
        except (OSError, ValueError) as error:
            raise DataFolderError(f"{self.state_path} cannot be read: {error}") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else None
            raise DataFolderError(
                f"The data folder {self.home} has format {found}; this egrpo uses format {FORMAT}. "
                "Use the egrpo version that made it, or another data folder (EGRPO_HOME=…), or delete this one."
            )
        raw["processes"] = [ProcessIdentity(**identity) for identity in raw["processes"]]
        raw["supervisor"] = raw["supervisor"] and ProcessIdentity(**raw["supervisor"])
        return StackState(**raw)

    def save(self, state: StackState) -> None:
        """Replaces the state file in one step; only the owner may read it."""
        draft = self.state_path.with_suffix(".tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(dataclasses.asdict(state), file, indent=2)
        draft.replace(self.state_path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
            AlreadyRunningError: another process holds it.
        """
        with (self.home / "stack.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AlreadyRunningError(self._already_running()) from error
            yield

    def is_held(self) -> bool:
        """Returns whether a stack runs (or is starting or stopping) in this folder."""
        try:
            with self.held():
                return False
        except AlreadyRunningError:
            return True
        except FileNotFoundError:
            return False

    def _already_running(self) -> str:
        state = self.load()
        who = f" (pid {state.supervisor.pid})" if state.supervisor else ""
        where = f" at {state.url}" if state.url else ""
        return f"A stack already runs in {self.home}{where}{who}. Stop it with: egrpo down"

    def _check_ours(self) -> None:
        if self.home.exists() and not self.home.is_dir():
            raise DataFolderError(f"{self.home} is a file, not a folder. Choose another with EGRPO_HOME=… or --home.")
        if self.home.is_dir() and not self.state_path.exists():
            strangers = [path.name for path in self.home.iterdir() if path.name not in ("logs", "stack.lock", "work")]
            if strangers:
                raise DataFolderError(
                    f"{self.home} is not empty and holds no stack.json ({', '.join(sorted(strangers)[:3])} …). "
                    "Choose an empty folder with EGRPO_HOME=… or --home."
                )

    def _check_disk(self) -> None:
        free_gb = shutil.disk_usage(self.home).free / 1e9
        if free_gb < REQUIRED_FREE_GB:
            raise DiskSpaceError(
                f"The disk of {self.home} has {free_gb:.1f} GB free; the local stack needs {REQUIRED_FREE_GB:g} GB. "
                "Free some space, or choose a folder on another disk with EGRPO_HOME=… or --home."
            )
