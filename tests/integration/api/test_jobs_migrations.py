"""Migrations on a real server, as the command that operators run."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from server_fixtures import drop_database, libpq_url
from sqlalchemy import create_engine, text

from jobs.tables import Base


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(libpq_url(postgres_url), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield postgres_url.rsplit("/", 1)[0] + f"/{name}"
        drop_database(connection, name)


def upgrade(url: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with nothing but the database's URL: it must need no more."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("EGRPO_")}
    command = [sys.executable, "-m", "migrations", "upgrade"]
    return subprocess.run(command, env={**env, "EGRPO_DATABASE_URL": url}, capture_output=True, text=True, check=False)


def test_they_make_the_tables_of_the_code(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_several_at_once_and_once_more(empty_database: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(upgrade, [empty_database] * 3))
    assert [run.returncode for run in runs] == [0, 0, 0], [run.stderr for run in runs]
    said = sorted("already" in run.stderr for run in runs)
    assert said == [False, True, True], "one works, the others find it done"


def test_a_database_ahead_of_the_code_is_left_alone(empty_database: str) -> None:
    upgrade(empty_database)
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'f00d'"))
    run = upgrade(empty_database)
    assert run.returncode == 0
    assert "warning: the database is ahead of this code (revision f00d)" in run.stderr
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "f00d"
    engine.dispose()


def test_no_database_is_an_error_that_says_so() -> None:
    run = upgrade("postgresql://u:hunter2@127.0.0.1:1/x")
    assert run.returncode == 1
    assert run.stderr == "error: the database cannot be reached; try again\n"


def test_a_missing_setting_is_named() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("EGRPO_")}
    command = [sys.executable, "-m", "migrations", "upgrade"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, "error: EGRPO_DATABASE_URL is not set\n")


def test_create_key_prints_only_the_key(database_url: str) -> None:
    env = {**os.environ, "EGRPO_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "jobs", "create-key", "--project", "p", "--name", "n"]
    keys = [subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert all(key.startswith("ega_") and key.endswith("\n") and key.count("\n") == 1 for key in keys)
    assert keys[0] != keys[1]
    with psycopg.connect(libpq_url(database_url)) as connection:
        assert connection.execute("SELECT count(*) FROM projects").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM api_keys").fetchone() == (2,)
