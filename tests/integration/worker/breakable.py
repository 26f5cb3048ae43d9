"""A TCP relay in front of a real server, which can be cut, or left hanging, and mended."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Breakable:
    """Relays to `host:port`. `cut` refuses and resets; `hang` accepts and goes silent; `mend` works again."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._mode = "open"
        self._sockets: set[socket.socket] = set()
        self.url = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{self._port}")
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        self._mode = "cut"
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()

    def hang(self) -> None:
        self._mode = "hang"

    def mend(self) -> None:
        if self._mode == "cut":
            self._listener = socket.create_server(("127.0.0.1", self._port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        self._mode = "open"
        self._drop()

    def close(self) -> None:
        with suppress(OSError):
            self.cut()

    def _drop(self) -> None:
        for sock in list(self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._sockets |= {near, far}
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=pair, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._mode == "hang":
                    continue
                sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
