"""PostgreSQL, Valkey and API processes with settings of their own, in a folder that goes with them.

PostgreSQL runs as it comes (every commit is flushed to the disk); only its connections are more, and its checkpoints
further apart, as anybody sets them who fills a database. There is no object store: nothing that is measured needs one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from egrpo_client.stack import postgres, valkey
from egrpo_client.stack.guard import Guard
from egrpo_client.stack.ports import free_ports
from egrpo_client.stack.processes import ServerProcess

_OPTIONS = ("max_connections=200", "max_wal_size=8GB", "checkpoint_timeout=30min")
_READY_S = 60.0


@dataclass(frozen=True)
class Stack:
    """What runs."""

    database_url: str
    ports: tuple[int, ...]
    roots: dict[str, int]

    @property
    def libpq_url(self) -> str:
        """The URL as psycopg itself takes it."""
        return self.database_url.replace("postgresql+psycopg://", "postgresql://")


@contextmanager
def servers(shared_buffers: str, num_apis: int) -> Iterator[Stack]:
    """Yields the database and the broker, migrated and empty, and the ports that the API processes will have."""
    home = Path(tempfile.mkdtemp(prefix="egrpo-bench-"))
    home.chmod(0o755)  # PostgreSQL runs as another user when we are root.
    guard = Guard(home / "guard.log")
    running: list[ServerProcess] = []
    try:
        pg_port, valkey_port, *ports = free_ports(2 + num_apis)
        superuser, role = postgres.new_password(), postgres.PostgresRole("egrpo", postgres.new_password())
        initdb = postgres.start_initdb(home / "pg", superuser, home / "pg.log")
        password = postgres.new_password()
        running.append(valkey.start(home / "valkey", valkey_port, password, home / "valkey.log"))
        assert initdb is not None
        initdb.finish()
        options = (*_OPTIONS, f"shared_buffers={shared_buffers}")
        running.append(postgres.start(home / "pg", pg_port, home / "pg.log", options))
        for process in running:
            guard.watch(process.identity)
        postgres.wait_ready(running[1], pg_port)
        postgres.create_role(pg_port, superuser, role, "egrpo")
        url = role.url(pg_port, "egrpo")
        _set_environment(url, valkey.url(valkey_port, password))
        subprocess.run([sys.executable, "-m", "migrations", "upgrade"], check=True, stderr=subprocess.DEVNULL)
        yield Stack(url, tuple(ports), {"Postgres": running[1].identity.pid, "Valkey": running[0].identity.pid})
    finally:
        for process in running:
            process.stop(grace_s=5)
        guard.close()
        shutil.rmtree(home, ignore_errors=True)


def _set_environment(database_url: str, broker_url: str) -> None:
    """Sets EGRPO_* for this process and those that it starts."""
    nowhere = {"EGRPO_S3_ENDPOINT": "http://127.0.0.1:1", "EGRPO_S3_ACCESS_KEY": "a", "EGRPO_S3_SECRET_KEY": "b"}
    # Requests are counted as they always are, and never too many.
    limits = {"EGRPO_RATE_LIMIT_PER_MINUTE": "6000000"}
    os.environ.update({"EGRPO_DATABASE_URL": database_url, "EGRPO_BROKER_URL": broker_url, **nowhere, **limits})


@contextmanager
def api(stack: Stack) -> Iterator[Stack]:
    """Runs an API process on each port and yields the stack with them: "API 1", "API 2", …."""
    command = [sys.executable, "-m", "api", "serve", "--port"]
    with tempfile.TemporaryFile() as log:
        processes = [subprocess.Popen([*command, str(port)], stdout=log, stderr=log) for port in stack.ports]
        try:
            for port, process in zip(stack.ports, processes, strict=True):
                _wait_ready(f"http://127.0.0.1:{port}/healthz", process)
            pids = {f"API {number}": process.pid for number, process in enumerate(processes, start=1)}
            yield Stack(stack.database_url, stack.ports, {**stack.roots, **pids, "this": os.getpid()})
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the API did not start")
