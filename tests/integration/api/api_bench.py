"""What the tests of the API share: two projects, requests with their keys, and rows as a worker writes them."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from api.services import Services
from egrpo_client.stack.ports import free_ports
from jobs import api_keys, artifacts, checkpoints, events, leases, logs, metrics, samples
from jobs.db import transaction
from jobs.leases import Claim
from jobs.settings import Settings
from jobs.states import Status

SPEC: dict[str, Any] = {
    "name": "posters",
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle", "a blue square left of a yellow triangle"]},
    "reward": {"components": [{"type": "shapes"}]},
    "training": {"steps": 120, "seed": 7},
}
# Longer than any server or thread is kept from its core, and shorter than a test may take.
PATIENCE_S = 60.0
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


class Bench:
    """One application, a project with a key, and a second project that must see nothing of the first."""

    def __init__(self, client: TestClient, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.services: Services = client.app.state.services  # type: ignore[attr-defined]
        with self.transaction() as session:
            self.project = api_keys.project_named(session, "mine")
            self.key = api_keys.create(session, self.project, "test")
            self.other_key = api_keys.create(session, api_keys.project_named(session, "other"), "test")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with transaction(self.services.sessions) as session:
            yield session

    def get(self, path: str, *, key: str | None = None, headers: dict[str, str] | None = None, **params: Any) -> Any:
        return self.client.get(
            path, params=params, headers={**self.auth(key), **(headers or {})}, follow_redirects=False
        )

    def delete(self, path: str, *, key: str | None = None, **params: Any) -> Any:
        return self.client.delete(path, params=params, headers=self.auth(key))

    def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, json=body, headers={**self.auth(key), **sent})

    def key_with(self, *scopes: str) -> str:
        """Returns a new key of the project that may do only that."""
        with self.transaction() as session:
            return api_keys.create(session, self.project, "narrow", scopes)

    def auth(self, key: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {key or self.key}"}

    def submit(self, **changes: Any) -> dict[str, Any]:
        response = self.post("/v1/jobs", {**SPEC, **changes})
        assert response.status_code == 201, response.text
        return dict(response.json())

    def claim(self) -> Claim:
        """Takes the next job, as a worker does."""
        with self.transaction() as session:
            claim = leases.claim(session, "worker-1", timedelta(seconds=90))
        assert claim is not None
        return claim

    def finish_files(self, claim: Claim) -> dict[str, str]:
        """Writes what a job leaves: a sample, an adapter of 300 000 bytes, a report. Returns the ids."""
        store, prefix = self.services.store, f"projects/{claim.project_id}/jobs/{claim.job_id}/{claim.epoch}"
        adapter = bytes(range(256)) * 1172
        image = store.put_bytes(f"{prefix}/samples/step-000000/000.png", PNG, content_type="image/png")
        file = store.put_bytes(f"{prefix}/adapter/pytorch_lora_weights.safetensors", adapter)
        report = store.put_bytes(f"{prefix}/artifacts/report.json", b'{"seconds": 1}', content_type="application/json")
        with self.transaction() as session:
            sample_id = samples.put(
                session, claim.job_id, claim.epoch, "samples/step-000000/000.png",
                step=0, kind="evaluation", prompt="a red circle", seed=1234, rewards={"shapes": 0.5}, passed=True,
                object_key=image.key, size_bytes=image.size_bytes, sha256=image.sha256,
            )  # fmt: skip
            entry = {"path": "pytorch_lora_weights.safetensors", "sha256": file.sha256, "size_bytes": file.size_bytes}
            checkpoint_id = checkpoints.add(
                session, claim.job_id, claim.epoch, step=120, kind="adapter", object_prefix=f"{prefix}/adapter",
                files=[entry], spec_digest=claim.spec_digest, eval_reward=0.6, format="diffusers",
            )  # fmt: skip
            artifacts.put(session, claim.job_id, claim.epoch, "report.json", report, "application/json")
        return {"sample": sample_id, "checkpoint": checkpoint_id}


@dataclass
class Served:
    """The API on a port of its own, and what a worker would do."""

    bench: Bench
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def work(self) -> str | None:
        """Takes the next job and lets it succeed with all its files; returns its id."""
        with self.bench.transaction() as session:
            claim = leases.claim(session, "worker-1", timedelta(seconds=90))
        if claim is None:
            return None
        self.bench.finish_files(claim)
        with self.bench.transaction() as session:
            line = logs.Line("output", "info", "torch is loaded")
            logs.append(session, claim.job_id, claim.attempt, 1, [line])
            metrics.upsert(session, claim.job_id, claim.epoch, {(1, "reward_mean"): 0.5})
            events.append(session, claim.job_id, "metric", {"step": 1, "values": {"reward_mean": 0.5}})
            job = leases.guard(session, claim.job_id, claim.epoch)
            leases.end(session, job, Status.SUCCEEDED, None, phase="done")
        return claim.job_id

    @contextmanager
    def working(self) -> Iterator[None]:
        """Works on jobs meanwhile."""
        stopped = threading.Event()

        def loop() -> None:
            while not stopped.wait(0.1):
                self.work()

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()


def until(condition: Callable[[], Any], what: str) -> Any:
    """Returns the condition's first true value."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE_S:g} s"
        time.sleep(0.02)
    return value


def returned(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, times: int = 1) -> threading.Event:
    """Returns what is set when a function has returned so many times from now on."""
    function, calls, enough = getattr(owner, name), itertools.count(1), threading.Event()

    def counted(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        if next(calls) >= times:
            enough.set()
        return result

    monkeypatch.setattr(owner, name, counted)
    return enough


@contextmanager
def when(happened: threading.Event, action: Callable[[], object]) -> Iterator[None]:
    """Acts in another thread as soon as something has happened, or in the end without it: a wait for it must end."""

    def act() -> None:
        happened.wait(PATIENCE_S)
        action()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Checks that an answer is a problem of that kind, complete, and returns its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert {"type", "title", "detail", "instance", "request_id", "retryable"} <= set(body)
    assert response.headers["x-request-id"] == body["request_id"]
    return body


class Cable:
    """A TCP connection to a server that can be cut and mended: how a server that goes down looks from outside."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        (self.port,) = free_ports(1)  # Nobody else gets it while the cable is cut.
        self.mend()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Refuses new connections and breaks those that are open."""
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                listener.close()
            for open_socket in self._sockets:
                with suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Keeps every connection, accepts new ones, and carries nothing any more."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                self._join(listener, near)

    def _join(self, listener: socket.socket, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        with self._lock:
            if self._listener is not listener:  # It was accepted before the cut, and is cut with the others.
                near.close()
                far.close()
                return
            self._sockets |= {near, far}
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(source)
        source.close()
