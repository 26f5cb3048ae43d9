"""Loopback ports: which are free, who holds one that is not, and how one that was chosen stays ours."""

import contextlib
import socket
import sys

import psutil

from egrpo_client.stack.errors import PortTakenError

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Returns `count` different ports that are free on loopback, and keeps them for servers of this process's choice.

    Seconds go by before the last server of a stack listens, and a server that is started again has left its port for a
    while. On Linux a port that is bound with the reuse of addresses allowed, and not listened on, is given to nobody
    who asks for any port or connects from one, and a server that allows the reuse too, as all of ours do, still gets
    it by name. Elsewhere another process may take a port first; the server then ends and the caller reports its log.
    """
    sockets = [_bound(0) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    _keep(sockets)
    return ports


def keep(port: int) -> bool:
    """Returns whether a server could bind the port, and keeps it for one as `free_ports` does."""
    try:
        sock = _bound(port)
    except OSError:
        return False
    _keep([sock])
    return True


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((LOOPBACK, port))
    except OSError:
        sock.close()
        raise
    return sock


def _keep(sockets: list[socket.socket]) -> None:
    """Leaves them open as long as this process lives; a child does not inherit them."""
    for sock in sockets:
        if sys.platform == "linux":
            sock.detach()
        else:
            sock.close()


def is_free(port: int) -> bool:
    """Returns whether a server could bind the port on loopback (lingering closed connections do not count)."""
    try:
        _bound(port).close()
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
