"""The service as processes with names (`api-0`, `worker-2`, `postgres`), each of which can be started anew.

Workers have folders of their own, as on hosts of their own, and each its own way to the database, which can be cut; the
clock of one of the hosts is wrong. The way to the store is everybody's. What is done to all this is in `chaos_faults`,
what the user does in `chaos_user`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from breakable import Breakable
from chaos_servers import ChaosServers
from faulty_store import FaultyStore
from small_disk import SmallDisk

from egrpo_client.stack.ports import free_ports

SCRIPT = Path(__file__).parents[1] / "integration" / "worker" / "scripted_trainer.py"
STEPS = 40
SCENARIO = {"steps": STEPS, "step_seconds": 0.05, "checkpoint_every": 2, "keeps_up": False}
NUM_APIS, NUM_WORKERS = 2, 3
# The clock of this one's host is an hour off; what makes it so is `wrong_clock/sitecustomize.py`.
LATE_WORKER = "worker-1"
# The disk of this one's host can be filled.
SMALL_WORKER = "worker-2"
WRONG_CLOCK = Path(__file__).with_name("wrong_clock")
# Recovery takes seconds: a lost worker's job is free again after the lease. Less of it runs out by load alone.
LEASE_S = 5.0
QUICK = {
    "EGRPO_LEASE_SECONDS": str(LEASE_S),
    "EGRPO_HEARTBEAT_SECONDS": "0.5",
    "EGRPO_REAPER_SECONDS": "0.3",
    "EGRPO_POLL_SECONDS": "0.2",
    "EGRPO_RETRY_SECONDS": "0.1",
    "EGRPO_CANCEL_DEADLINE_SECONDS": "10",
    "EGRPO_MIN_FREE_BYTES": str(2**20),
    "EGRPO_GC_SECONDS": "1",
    "EGRPO_GC_GRACE_SECONDS": "1",
    "EGRPO_MAINTENANCE_LEASE_SECONDS": "2",
    "EGRPO_PUBLISH_SECONDS": "0.05",
}


@dataclass(frozen=True)
class Victim:
    """What a fault may strike: a process, and those that are stopped and killed with it."""

    name: str
    processes: tuple[psutil.Process, ...]


class ChaosService:
    """APIs, workers, the maintenance process, their servers and the network between them."""

    def __init__(self, folder: Path, trainer: Sequence[str] = (), settings: Mapping[str, str] | None = None) -> None:
        """Starts everything; the trainer is the scripted one if none is given."""
        self._folder = folder
        self.servers = ChaosServers(folder)
        self.disk = SmallDisk(folder / f"host-of-{SMALL_WORKER}")
        workers = [f"worker-{number}" for number in range(NUM_WORKERS)]
        self.networks = {name: Breakable(self.servers.database_url) for name in workers}
        self.store = FaultyStore(self.servers.s3.endpoint)
        self.scenario = folder / "scenario.json"
        self.scenario.write_text(json.dumps(SCENARIO))
        apis = [f"api-{number}" for number in range(NUM_APIS)]
        self.api_ports = dict(zip(apis, free_ports(NUM_APIS), strict=True))
        command = json.dumps(list(trainer) or [sys.executable, str(SCRIPT), str(self.scenario)])
        own = {"EGRPO_TRAINER_COMMAND": command, "EGRPO_S3_ENDPOINT": self.store.endpoint}
        self.env = {**os.environ, **self.servers.env(), **QUICK, **own, **(settings or {})}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in [*apis, *workers, "maintenance-0"]:
            self._processes[name] = self._start(name)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        kind = name.split("-")[0]
        own = self._env_of_worker(name) if kind == "worker" else {}
        command = ["api", "serve", "--port", str(self.api_ports[name])] if kind == "api" else ["worker"]
        command += ["maintenance"] * (kind == "maintenance")
        with (self._folder / f"{name}.log").open("ab") as log:
            argv = [sys.executable, "-m", *command]
            if name == SMALL_WORKER and self.disk.refused is None:
                argv = self.disk.around(argv)
            return subprocess.Popen(argv, env={**self.env, **own}, stdout=log, stderr=log)

    def _env_of_worker(self, name: str) -> dict[str, str]:
        own = {"EGRPO_WORKER_NAME": name, "EGRPO_WORK_DIR": str(self._folder / f"host-of-{name}")}
        if name == LATE_WORKER:
            own["PYTHONPATH"] = os.pathsep.join([str(WRONG_CLOCK), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**own, "EGRPO_DATABASE_URL": self.networks[name].url}

    def new_key(self) -> str:
        """Returns a key of the API."""
        create = [sys.executable, "-m", "jobs", "create-key", "--project", "default", "--name", "chaos"]
        return subprocess.run(create, env=self.env, capture_output=True, text=True, check=True).stdout.strip()

    def victims(self, kind: str) -> list[Victim]:
        """Returns what a fault of a kind may strike now; of workers only those that are over a job."""
        if kind in self.servers.processes:
            found = self.servers.processes[kind].identity.find()
            return [Victim(kind, (found, *_children(found, recursive=True)))] if found else []
        if kind == "trainer":
            running = [
                (worker.name, child) for worker in self._living("worker") for child in _children(worker.processes[0])
            ]
            return [Victim(f"trainer {child.pid} of {name}", (child,)) for name, child in running]
        if kind == "disk":
            return [victim for victim in self.victims("worker") if victim.name == SMALL_WORKER]
        if kind == "network":
            return [victim for victim in self.victims("worker") if self.networks[victim.name].is_open]
        return [victim for victim in self._living(kind) if kind != "worker" or _children(victim.processes[0])]

    def _living(self, kind: str) -> list[Victim]:
        named = {name: process for name, process in self._processes.items() if name.startswith(kind)}
        return [Victim(name, (psutil.Process(each.pid),)) for name, each in named.items() if each.poll() is None]

    def start_again(self, name: str) -> None:
        """Replaces a process that was killed; a trainer is its worker's to replace."""
        if name in self.servers.processes:
            self.servers.processes[name].stop(grace_s=0)
            self.servers.start(name)
        elif name in self._processes:
            self._processes[name].wait()
            self._processes[name] = self._start(name)

    def trainers(self) -> list[int]:
        """Returns the pids of all trainers that were ever started."""
        lines = Path(f"{self.scenario}.attempts").read_text().splitlines()
        return [json.loads(line)["pid"] for line in lines]

    def end_maintenance(self) -> None:
        """Ends the process for good, as an operator does."""
        self._processes["maintenance-0"].terminate()
        assert self._processes["maintenance-0"].wait(timeout=60) == 0

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        for network in self.networks.values():
            network.close()
        self.store.close()
        self.servers.close()


def wait_for(
    condition: Callable[[], Any], what: str, seconds: float = 120, told: Callable[[], str] = lambda: ""
) -> Any:
    """Returns the condition's first true value; says what was `told` when there was none."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s {told()}"
        time.sleep(0.05)
    return value


def _children(process: psutil.Process, *, recursive: bool = False) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=recursive))
    except psutil.NoSuchProcess:
        return []
