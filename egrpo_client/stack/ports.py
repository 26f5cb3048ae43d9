"""Loopback ports: which are free, and who holds one that is not."""

import contextlib
import socket

import psutil

from egrpo_client.stack.errors import PortTakenError

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Returns `count` different ports that are free on loopback now.

    All are held open until the last is found, so that no port is returned twice. Another process may still take one
    before the server binds it; the server then ends and the caller reports its log.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(count)]
        for sock in sockets:
            sock.bind((LOOPBACK, 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def is_free(port: int) -> bool:
    """Returns whether a server could bind the port on loopback (lingering closed connections do not count)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def listener(port: int) -> str | None:
    """Returns `name (pid N)` of the process that listens on the port, or None where the system does not tell."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None


def require_free(port: int, purpose: str, remedy: str) -> None:
    """Raises `PortTakenError`, naming port, purpose and holder, unless the port is free.

    Args:
        port: the loopback port that a server is about to bind.
        purpose: what the port is for, e.g. `the API`.
        remedy: the sentence that says what the user can do.

    Raises:
        PortTakenError: another process holds the port.
    """
    if is_free(port):
        return
    holder = listener(port) or "another process (the system does not show which)"
    raise PortTakenError(f"Port {port} on {LOOPBACK}, needed for {purpose}, is taken by {holder}. {remedy}")
