"""A model hub on this machine that answers as huggingface.co does: status codes, error codes and file listings.

Repositories are folders under one root, `owner/name`; those whose name says so are gated, or have no such revision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    root: Path

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output quiet."""

    def _answer(self, with_body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[0] == "api":  # /api/models/owner/name/(revision|tree)/REVISION
            repo, revision, file = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else REVISION, None
        else:  # /owner/name/resolve/REVISION/path
            repo, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if repo.endswith("gated"):
            return self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        if not (self.root / repo).is_dir():
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if revision != REVISION:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        if file is None:
            kind = parts[4] if len(parts) > 4 else "revision"
            return self._send(200, self._listing(repo, kind), {"Content-Type": "application/json"})
        path = self.root / repo / file
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": REVISION}
        self._send(200, content, headers, with_body)

    def _listing(self, repo: str, kind: str) -> bytes:
        files = [path for path in sorted((self.root / repo).rglob("*")) if path.is_file()]
        names = {str(path.relative_to(self.root / repo)): path.stat().st_size for path in files}
        if kind == "tree":
            entries = [
                {"type": "file", "path": name, "size": size, "oid": hashlib.sha1(name.encode()).hexdigest()}
                for name, size in names.items()
            ]
            return json.dumps(entries).encode()
        siblings = [{"rfilename": name, "size": size} for name, size in names.items()]
        return json.dumps({"id": repo, "modelId": repo, "sha": REVISION, "siblings": siblings, "tags": []}).encode()

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@contextmanager
def fake_hub(root: Path) -> Iterator[str]:
    """Serves the repositories under a folder inside the block; yields the endpoint."""
    handler = type("Handler", (_Handler,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
