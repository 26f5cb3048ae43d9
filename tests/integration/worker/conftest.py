"""The workbench of the worker's tests."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_bench import SCRIPT, Bench, Start, wait_for

from jobs.db import make_engine, make_session_factory
from jobs.store import ObjectStore
from worker.settings import WorkerSettings


@pytest.fixture
def bench(service_env: dict[str, str], tmp_path: Path) -> Iterator[Bench]:
    """Everything is quick but what a machine that stands still for seconds would run into: leases, graces, timeouts.

    The engines are disposed of when no thread uses them any more: a connection that comes back to a pool that is gone
    is left to the collector, whose warning fails whichever test runs then.
    """
    others = set(threading.enumerate())
    scenario = tmp_path / "scenario.json"
    values = {name.removeprefix("EGRPO_").lower(): value for name, value in service_env.items()}
    settings = WorkerSettings(
        **values,
        lease_seconds=90,
        heartbeat_seconds=0.3,
        reaper_seconds=0.3,
        poll_seconds=0.2,
        retry_seconds=0.05,
        publish_seconds=0.05,
        stop_grace_seconds=60,
        database_connect_timeout_seconds=60,
        database_statement_timeout_seconds=60,
        trainer_command=[sys.executable, str(SCRIPT), str(scenario)],
    )
    engine = make_engine(settings)
    bench = Bench(settings, make_session_factory(engine), ObjectStore(settings), scenario)
    bench.script()
    yield bench
    for runner in bench.runners:
        runner.drain()
    wait_for(lambda: set(threading.enumerate()) <= others, seconds=120)
    for each in [engine, *bench.engines]:
        each.dispose()


@pytest.fixture
def start(bench: Bench, service_env: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts workers; what is still running after the test is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def run(**settings: str) -> subprocess.Popen[bytes]:
        quick = {
            "EGRPO_LEASE_SECONDS": "60",
            "EGRPO_HEARTBEAT_SECONDS": "0.3",
            "EGRPO_REAPER_SECONDS": "0.3",
            "EGRPO_POLL_SECONDS": "0.2",
            "EGRPO_RETRY_SECONDS": "0.1",
            "EGRPO_PUBLISH_SECONDS": "0.05",
            "EGRPO_TRAINER_COMMAND": json.dumps([sys.executable, str(SCRIPT), str(bench.scenario)]),
        }
        with (tmp_path / "worker.log").open("ab") as log:
            env = {**os.environ, **service_env, **quick, **settings}
            started.append(subprocess.Popen([sys.executable, "-m", "worker"], env=env, stdout=log, stderr=log))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
    print((tmp_path / "worker.log").read_text())
