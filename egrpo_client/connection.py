"""Where the service is and who we are: from the environment, else from the local stack's state file."""

import dataclasses
import json
import os
from pathlib import Path

from egrpo_client.errors import NotConfiguredError

HELP = "Set EGRPO_URL and EGRPO_API_KEY, or start a local stack with: egrpo up"


@dataclasses.dataclass(frozen=True)
class Connection:
    """URL and key of a service."""

    url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Connection({self.url!r}, api_key=…)"  # A key must not end up in a log.


def local_home() -> Path:
    """Returns the local stack's data folder: `$EGRPO_HOME`, else `egrpo` in the user's data directory."""
    if home := os.environ.get("EGRPO_HOME"):
        return Path(home).expanduser().resolve()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "egrpo"


def find_connection() -> Connection:
    """Returns the connection of this environment.

    Raises:
        NotConfiguredError: a half-set environment, or neither environment nor running local stack.
    """
    url, api_key = os.environ.get("EGRPO_URL"), os.environ.get("EGRPO_API_KEY")
    if url and api_key:
        return Connection(url.rstrip("/"), api_key)
    if url or api_key:
        missing = "EGRPO_API_KEY" if url else "EGRPO_URL"
        raise NotConfiguredError(f"{missing} is not set, its companion is. {HELP}")
    return _local_connection(local_home() / "stack.json")


def _local_connection(path: Path) -> Connection:
    try:
        state = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise NotConfiguredError(f"No service is known. {HELP}") from error
    except (OSError, ValueError) as error:
        raise NotConfiguredError(f"{path} cannot be read: {error}. {HELP}") from error
    status = state.get("status")
    if status == "running" and not _is_alive(state["supervisor"]["pid"]):
        status = "gone: it was killed"
    if status != "running":
        raise NotConfiguredError(f"The local stack in {path.parent} is {status}. Start it with: egrpo up")
    return Connection(state["url"], state["api_key"])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # Another user's: alive.
        return True
    return True
