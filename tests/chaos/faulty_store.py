"""A relay in front of an S3 server that answers 500 and 503, is slow, or cuts bodies short, while it is told to.

Requests go on unchanged, their Host header too, which is part of their signature.
"""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_SLOW_S = 0.4
_STATUSES = itertools.cycle((500, 503))
# Every second short body claims to be whole: only its sha256 tells.
_ADMITS = itertools.cycle((True, False))


class FaultyStore(ThreadingHTTPServer):
    """Relays from a port of its own; `mode` is `open`, `fail`, `slow` or `truncate`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.target = urlsplit(endpoint).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.mode = "open"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def mend(self) -> None:
        self.mode = "open"

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of clients that were killed."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyStore

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode = self.server.mode
        if mode == "fail":
            self._answer(next(_STATUSES), [], b"<Error><Code>InternalError</Code></Error>")
            return
        if mode == "slow":
            time.sleep(_SLOW_S)
        try:
            self._answer(*self._asked(body))
        except (OSError, HTTPException):  # The server itself is down: the client sees its connection end.
            self.close_connection = True

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = HTTPConnection(self.server.target, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        sent, length = body, len(body)
        if self.server.mode == "truncate" and self.command == "GET" and status == 200:
            sent = body[: len(body) // 2]
            length = length if next(_ADMITS) else len(sent)
            self.close_connection = True
        self.send_response(status)
        told = next((value for name, value in headers if name.lower() == "content-length"), str(length))
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", told if self.command == "HEAD" else str(length))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(b"" if self.command == "HEAD" else sent)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _relay

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the suite tells what it does."""
