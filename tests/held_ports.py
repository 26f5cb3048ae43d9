"""Ports of servers that are about to start, or to start again, which nobody else is given meanwhile."""

import socket


def hold_port() -> socket.socket:
    """Returns a socket that holds a free port of loopback until it is closed, and never listens.

    The system gives a held port to nobody who asks for any. A server that asks for this one, with `SO_REUSEADDR` as all
    of ours do, gets it; until then a connection to it is refused.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def port_of(held: socket.socket) -> int:
    """Returns the number of a held port."""
    return int(held.getsockname()[1])
