"""Database, store and broker of one run, each of which can be killed and started again with its data and its port.

They are the run's own: the tests' shared servers would take the tests after it down with them, and their PostgreSQL
forgets what it has acknowledged when it is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis
from server_fixtures import S3Server

from egrpo_client.stack import postgres, seaweed, valkey
from egrpo_client.stack.guard import Guard
from egrpo_client.stack.ports import free_ports
from egrpo_client.stack.processes import ServerProcess

# What was acknowledged survives the death of the processes; a power cut is not in the suite.
_OPTIONS = ("fsync=off", "full_page_writes=off")
BUCKET = "chaos"


class ChaosServers:
    """PostgreSQL with the service's schema, SeaweedFS with its bucket, and Valkey."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._guard = Guard(home / "guard.log")
        self._pg_port, self._broker_port, *weed = free_ports(2 + len(seaweed.PORT_NAMES))
        self._weed_ports = dict(zip(seaweed.PORT_NAMES, weed, strict=True))
        self._keys = seaweed.S3Credentials("chaos-access", postgres.new_password())
        self._start: dict[str, Callable[[], ServerProcess]] = {
            "store": lambda: seaweed.start(home / "s3", self._weed_ports, self._keys, home / "s3.log"),
            "broker": lambda: valkey.start(home / "valkey", self._broker_port, "chaos", home / "valkey.log"),
            "postgres": lambda: postgres.start(home / "pg", self._pg_port, home / "pg.log", _OPTIONS),
        }
        superuser = postgres.new_password()
        initdb = postgres.start_initdb(home / "pg", superuser, home / "pg.log")
        self.processes: dict[str, ServerProcess] = {}
        self.start("store")
        self.start("broker")
        assert initdb is not None
        initdb.finish()
        self.start("postgres")
        self._prepare(superuser)

    def start(self, name: str) -> None:
        """Starts a server; its clients wait until it answers."""
        self.processes[name] = self._start[name]()
        self._guard.watch(self.processes[name].identity)

    def _prepare(self, superuser: str) -> None:
        role = postgres.PostgresRole("egrpo", postgres.new_password())
        postgres.wait_ready(self.processes["postgres"], self._pg_port)
        postgres.create_role(self._pg_port, superuser, role, "egrpo")
        self.database_url = role.url(self._pg_port, "egrpo")
        seaweed.wait_ready(self.processes["store"], self._weed_ports)
        self.s3 = S3Server(seaweed.endpoint(self._weed_ports), self._keys.access_key, self._keys.secret_key)
        self.s3.client().make_bucket(BUCKET)
        upgrade = [sys.executable, "-m", "migrations", "upgrade"]
        subprocess.run(upgrade, env={**os.environ, **self.env()}, check=True, capture_output=True)

    def env(self) -> dict[str, str]:
        """Returns the settings that name the servers."""
        return {
            "EGRPO_DATABASE_URL": self.database_url,
            "EGRPO_BROKER_URL": valkey.url(self._broker_port, "chaos"),
            "EGRPO_S3_ENDPOINT": self.s3.endpoint,
            "EGRPO_S3_ACCESS_KEY": self.s3.access_key,
            "EGRPO_S3_SECRET_KEY": self.s3.secret_key,
            "EGRPO_S3_BUCKET": BUCKET,
        }

    def flush_broker(self) -> None:
        """Empties the broker, if it answers."""
        with suppress(redis.RedisError), redis.Redis.from_url(self.env()["EGRPO_BROKER_URL"]) as client:
            client.flushall()

    def wait_ready(self) -> None:
        """Returns when the servers that a run's evidence is read from answer."""
        postgres.wait_ready(self.processes["postgres"], self._pg_port)
        seaweed.wait_ready(self.processes["store"], self._weed_ports)

    def close(self) -> None:
        for process in self.processes.values():
            process.stop(grace_s=0)
        seaweed.remove_sockets(self._weed_ports)
        self._guard.close()
