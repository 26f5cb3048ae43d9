"""Real PostgreSQL, Valkey and S3 for the tests: one of each per run, all started at once on first use.

    session   postgres_url    a database URL of the server (database `egrpo`, empty), whose role may create databases
              valkey_url      the broker
              s3              endpoint and keys of the object store
    test      database_url    a fresh database, copied from a template that the migrations made
              broker_url      the broker, emptied
              bucket          a fresh bucket
              service_env     all EGRPO_* settings for the three above: what api, worker and migrations are started with

The guard process stops the servers even when pytest is killed.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import minio
import psycopg
import pytest
import redis
from psycopg import sql

from egrpo_client.stack import postgres, seaweed, valkey
from egrpo_client.stack.guard import Guard
from egrpo_client.stack.ports import free_ports
from egrpo_client.stack.processes import ServerProcess

TEMPLATE = "egrpo_template"


@dataclasses.dataclass(frozen=True)
class S3Server:
    """What a client of the object store needs."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def client(self) -> minio.Minio:
        """Returns a client of the whole store."""
        host = self.endpoint.removeprefix("http://")
        return minio.Minio(host, self.access_key, self.secret_key, secure=False, region=self.region)


class Servers:
    """The three servers, starting together; each accessor waits for its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.guard = Guard(home / "guard.log")
        self.pg_port, self.valkey_port, *weed = free_ports(2 + len(seaweed.PORT_NAMES))
        self.weed_ports = dict(zip(seaweed.PORT_NAMES, weed, strict=True))
        self.role = postgres.PostgresRole("egrpo", postgres.new_password())
        self.superuser_password = postgres.new_password()
        self.valkey_password = postgres.new_password()
        self.s3_keys = seaweed.S3Credentials("test-access", postgres.new_password())
        self.weed = self._watched(seaweed.start(home / "s3", self.weed_ports, self.s3_keys, home / "s3.log"))
        self.initdb = postgres.start_initdb(home / "pg", self.superuser_password, home / "pg.log")
        self.valkey = self._watched(
            valkey.start(home / "valkey", self.valkey_port, self.valkey_password, home / "valkey.log")
        )
        self.postgres: ServerProcess | None = None

    def _watched(self, process: ServerProcess) -> ServerProcess:
        self.guard.watch(process.identity)
        return process

    def postgres_url(self) -> str:
        if self.postgres is None:
            if self.initdb is not None:
                self.initdb.finish()
            options = postgres.THROWAWAY_OPTIONS
            self.postgres = self._watched(postgres.start(self.home / "pg", self.pg_port, self.home / "pg.log", options))
            postgres.wait_ready(self.postgres, self.pg_port)
            postgres.create_role(self.pg_port, self.superuser_password, self.role, "egrpo")
        return self.role.url(self.pg_port, "egrpo")

    def valkey_url(self) -> str:
        valkey.wait_ready(self.valkey, self.valkey_port)
        return valkey.url(self.valkey_port, self.valkey_password)

    def s3(self) -> S3Server:
        seaweed.wait_ready(self.weed, self.weed_ports)
        return S3Server(seaweed.endpoint(self.weed_ports), self.s3_keys.access_key, self.s3_keys.secret_key)

    def stop(self) -> None:
        """Stops at once what is thrown away anyway."""
        if self.initdb is not None:
            self.initdb.process.stop(grace_s=0)
        for process in (self.postgres, self.valkey, self.weed):
            if process is not None:
                process.stop(grace_s=0)
        seaweed.remove_sockets(self.weed_ports)
        self.guard.close()


def libpq_url(url: str) -> str:
    """Returns the URL as psycopg itself takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The servers in a folder with a short name: paths of Unix sockets are limited to 107 characters."""
    home = Path(tempfile.mkdtemp(prefix="egrpo-test-"))
    home.chmod(0o755)  # PostgreSQL runs as another user when the tests run as root.
    running = Servers(home)
    yield running
    running.stop()
    shutil.rmtree(home, ignore_errors=True)  # A process of theirs that was just killed may still be making a file.


@pytest.fixture(scope="session")
def postgres_url(servers: Servers) -> str:
    return servers.postgres_url()


@pytest.fixture(scope="session")
def valkey_url(servers: Servers) -> str:
    return servers.valkey_url()


@pytest.fixture(scope="session")
def s3(servers: Servers) -> S3Server:
    return servers.s3()


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> str:
    """The URL of the database that `python -m migrations upgrade` made; copied, never used."""
    with psycopg.connect(libpq_url(postgres_url), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    url = postgres_url.rsplit("/", 1)[0] + f"/{TEMPLATE}"
    run = subprocess.run(
        [sys.executable, "-m", "migrations", "upgrade"],
        env={
            **os.environ,
            **settings_env(url, "redis://127.0.0.1:1/0", S3Server("http://127.0.0.1:1", "a", "b"), "none"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return url


@contextmanager
def fresh_database(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """Yields the URL of a database of its own with the current schema."""
    name = f"test_{uuid.uuid4().hex}"
    copied = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(TEMPLATE))
    with psycopg.connect(libpq_url(postgres_url), autocommit=True) as connection:
        when_nobody_is_in_the_way(connection, copied)
        yield migrated_template.rsplit("/", 1)[0] + f"/{name}"
        drop_database(connection, name)


@pytest.fixture
def database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A fresh database with the current schema, for one test."""
    with fresh_database(postgres_url, migrated_template) as url:
        yield url


def drop_database(connection: psycopg.Connection, name: str) -> None:
    """Drops a database and whatever is connected to it."""
    when_nobody_is_in_the_way(connection, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def when_nobody_is_in_the_way(connection: psycopg.Connection, statement: sql.Composed) -> None:
    """Executes a statement for which nobody else may be connected to a database.

    An autovacuum worker there belongs to the superuser, whom the tests' role may not end; it is gone in a moment. Of
    others the server waits 5 s for the end, which a busy machine may not be enough for.
    """
    deadline = time.monotonic() + 60
    while True:
        try:
            connection.execute(statement)
            return
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectInUse):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture
def broker_url(valkey_url: str) -> str:
    """The broker without a message of the test before."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    return valkey_url


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """A fresh bucket; it goes with the server."""
    name = f"test-{uuid.uuid4().hex}"
    s3.client().make_bucket(name)
    return name


@pytest.fixture
def service_env(database_url: str, broker_url: str, s3: S3Server, bucket: str, tmp_path: Path) -> dict[str, str]:
    """The settings of one service of its own."""
    return {**settings_env(database_url, broker_url, s3, bucket), "EGRPO_WORK_DIR": str(tmp_path / "work")}


def settings_env(database_url: str, broker_url: str, s3: S3Server, bucket: str) -> dict[str, str]:
    """Returns the settings of a service on these servers."""
    return {
        "EGRPO_DATABASE_URL": database_url,
        "EGRPO_BROKER_URL": broker_url,
        "EGRPO_S3_ENDPOINT": s3.endpoint,
        "EGRPO_S3_ACCESS_KEY": s3.access_key,
        "EGRPO_S3_SECRET_KEY": s3.secret_key,
        "EGRPO_S3_BUCKET": bucket,
        "EGRPO_S3_REGION": s3.region,
    }
