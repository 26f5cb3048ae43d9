"""The API as its own process, over a socket: what an in-process client cannot show."""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psycopg
import pytest
from api_bench import PATIENCE_S, SPEC, until
from server_fixtures import libpq_url

from egrpo_client import Client
from egrpo_client.stack.ports import free_ports
from jobs.__main__ import create_key

# The command, without what would end a wait or wake a stream after some seconds whether it was told to or not.
SERVE = """
import sys
from api import waker
from api.__main__ import main
from api.events import stream
waker._LOOK_AGAIN_S = waker._LOOK_AGAIN_DEAF_S = stream.PING_S = stream.LONGEST_S = 3600.0
sys.exit(main())
"""


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    port: int
    key: str

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=2 * PATIENCE_S)

    def answers(self) -> bool:
        assert self.process.poll() is None, "the API has ended"
        with self.client() as client:
            try:
                return client.get("/healthz").status_code == 200
            except httpx.ConnectError:
                return False


@pytest.fixture
def served(
    service_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Served]:
    patient = {"EGRPO_DATABASE_CONNECT_TIMEOUT_SECONDS": "60", "EGRPO_DATABASE_STATEMENT_TIMEOUT_SECONDS": "60"}
    for name, value in {**service_env, **patient, **getattr(request, "param", {})}.items():
        monkeypatch.setenv(name, value)
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, "-c", SERVE, "serve", "--port", str(port)], env=dict(os.environ))
    try:
        served = Served(process, port, create_key("default", "test"))
        until(served.answers, "API")
        yield served
    finally:
        process.kill()
        process.wait()


def test_an_endless_body_is_cut_off(served: Served) -> None:
    """The refusal comes while the client still sends, not after it."""
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head.encode())
        connection.setblocking(False)
        sent, left = 0, memoryview(b"")
        while True:
            readable, writable, _ = select.select([connection], [connection], [], PATIENCE_S)
            if readable:
                break
            assert writable, "it neither reads on nor answers"
            sent, left = (sent, left) if left else (sent + 1, memoryview(chunk))
            assert sent < 40, "16 MiB are the limit; some more are on their way"
            try:
                left = left[connection.send(left) :]
            except ConnectionError:  # It has answered since, and closed.
                break
        connection.settimeout(PATIENCE_S)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("served", "address"),
    [
        ({}, "203.0.113.9"),
        ({"FORWARDED_ALLOW_IPS": "10.9.8.7, 127.0.0.0/8"}, "203.0.113.9"),
        ({"FORWARDED_ALLOW_IPS": "10.9.8.7"}, "127.0.0.1"),
        ({"FORWARDED_ALLOW_IPS": ""}, "127.0.0.1"),
    ],
    indirect=["served"],
)
def test_an_address_is_what_a_named_proxy_says_and_no_other(served: Served, address: str) -> None:
    with served.client() as client:
        forwarded = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}  # The first is what the proxy was told.
        body = {"name": "a", "scopes": ["jobs:read"]}
        assert client.post("/v1/api-keys", json=body, headers=forwarded).status_code == 201
        assert client.get("/v1/audit-events").json()["data"][0]["address"] == address


@pytest.mark.parametrize("named", ["*", "10.0.0.1, *", "0.0.0.0/0", "::/0", "proxy.example.com", "10.0.0.1/8"])
def test_believing_everybody_or_nothing_that_is_an_address_is_refused(named: str) -> None:
    command = [sys.executable, "-m", "api", "serve", "--port", "0"]
    env = {**os.environ, "FORWARDED_ALLOW_IPS": named}
    refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: FORWARDED_ALLOW_IPS: ")


@pytest.mark.parametrize("served", [{"EGRPO_BODY_TIMEOUT_SECONDS": "1"}], indirect=True)
def test_a_body_that_trickles_is_not_waited_for(served: Served) -> None:
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head.encode())
        connection.settimeout(PATIENCE_S)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408"), answer[:200]
    assert 0.9 < time.monotonic() - started < 30, "a minute is the service's own limit"


def test_sigterm_releases_who_waits_and_ends_the_process(served: Served, database_url: str) -> None:
    with served.client() as client, psycopg.connect(libpq_url(database_url)) as database:
        job = client.post("/v1/jobs", json=SPEC).json()["id"]
        answers: list[httpx.Response] = []
        path = f"/v1/jobs/{job}/events"
        waiter = threading.Thread(target=lambda: answers.append(client.get(path, params={"after": 1, "wait": 60})))
        database.execute("LOCK TABLE events")  # Who asks for events stands here until the transaction ends.
        waiter.start()
        asked = "SELECT 1 FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted"
        until(lambda: database.execute(asked).fetchone(), "question for events")
        database.commit()
        started = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        waiter.join(timeout=PATIENCE_S)
        served.process.wait(timeout=PATIENCE_S)
    assert time.monotonic() - started < 40
    assert answers[0].status_code == 200
    assert answers[0].json()["data"] == []


def test_a_stream_tells_at_once_and_sigterm_ends_it(served: Served) -> None:
    with Client(f"http://127.0.0.1:{served.port}", served.key) as client, served.client() as other:
        job = client.submit(SPEC).id
        stream = client.stream_events(job)
        assert [event.name for event in itertools.islice(stream, 2)] == ["status", "job"]
        assert other.get(f"/v1/jobs/{job}").status_code == 200
        served.process.send_signal(signal.SIGTERM)
        assert list(stream) == [], "it ends without `done`"
        served.process.wait(timeout=PATIENCE_S)


def test_what_happens_while_the_stream_is_open_is_told(served: Served) -> None:
    with Client(f"http://127.0.0.1:{served.port}", served.key) as client, served.client() as other:
        job = client.submit(SPEC).id
        stream = client.stream_events(job)
        assert next(stream).name == "status"
        other.post(f"/v1/jobs/{job}/cancel")
        rest = list(stream)
    assert [event.name for event in rest] == ["job", "status", "job", "done"]
    assert rest[-1].data["status"] == "cancelled"
