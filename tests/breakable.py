"""A TCP relay in front of a real server, which can be cut, or left hanging, and mended."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from egrpo_client.stack.ports import free_ports


class Breakable:
    """Relays to `host:port`. `cut` refuses and resets; `hang` accepts and goes silent; `mend` works again."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        (self._port,) = free_ports(1)  # Nobody else is given it, also while it is cut and nobody listens.
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._mode = "open"
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._passing: list[threading.Lock] = []
        self.url = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{self._port}")
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def is_open(self) -> bool:
        return self._mode == "open"

    def cut(self) -> None:
        self._mode = "cut"
        self._close_listener()
        self._drop()

    def hang(self) -> None:
        self._mode = "hang"
        with self._lock:
            relays = list(self._passing)
        for passing in relays:  # What was about to pass has passed when this returns.
            with passing:
                pass

    def mend(self) -> None:
        was_cut = self._mode == "cut"
        self._mode = "open"
        self._drop()
        if was_cut:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        self.cut()

    def _close_listener(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _drop(self) -> None:
        """Wakes the relays of all connections, which close them."""
        with self._lock:
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        """Relays one connection in both directions until either side ends it."""
        with near, suppress(OSError), socket.create_connection(self._target) as far:
            with self._lock:
                self._sockets |= {near, far}
            if self._mode == "cut":
                self._drop()
            back = threading.Thread(target=self._relay, args=(far, near), daemon=True)
            back.start()
            self._relay(near, far)
            back.join()
            with self._lock:
                self._sockets -= {near, far}

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        passing = threading.Lock()
        with self._lock:
            self._passing.append(passing)
        with suppress(OSError):
            while data := source.recv(65536):
                with passing:
                    if self._mode != "hang":
                        sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
