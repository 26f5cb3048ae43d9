"""The service as its processes: an API, any number of workers, and a user who speaks HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from egrpo_client.stack.ports import free_ports

# Thirty short steps: a step is far shorter than a poll, a run a few seconds.
SPEC: dict[str, Any] = {
    "name": "e2e",
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle", "a blue square", "a green triangle left of a red circle", "a black star"]},
    "reward": {"components": [{"type": "shapes"}]},
    "method": {"type": "egrpo", "sampling_steps": 4, "active_steps": [0], "group_size": 4, "entropy_threshold": 0.5},
    "training": {"steps": 30, "prompts_per_update": 1, "learning_rate": 1e-3, "lora": {"rank": 4, "alpha": 8}},
    "evaluation": {"every_steps": 10, "prompts": 2, "images_per_prompt": 1},
    "checkpoint": {"every_steps": 5},
}


def with_steps(steps: int) -> dict[str, Any]:
    return {**SPEC, "training": {**SPEC["training"], "steps": steps}}


class Worker:
    """One `python -m worker`."""

    def __init__(self, env: dict[str, str], log_path: Path) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            command = [sys.executable, "-m", "worker"]
            self.process = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log)

    def trainer(self) -> psutil.Process:
        """Returns the trainer that this worker runs."""
        return wait_for(lambda: next(iter(psutil.Process(self.process.pid).children()), None))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Asks the worker to end and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


class Service:
    """An API with one key, and the workers that a test starts."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.env = env
        self._folder = folder
        self.workers: list[Worker] = []
        (port,) = free_ports(1)
        run = [sys.executable, "-m", "jobs", "create-key", "--project", "default", "--name", "e2e"]
        key = subprocess.run(run, env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout.strip()
        command = [sys.executable, "-m", "api", "serve", "--port", str(port)]
        with (folder / "api.log").open("ab") as log:
            self._api = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log)
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
        )
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def worker(self, **settings: str) -> Worker:
        number = len(self.workers) + 1
        env = {**self.env, "EGRPO_WORKER_NAME": f"worker-{number}", **settings}
        worker = Worker(env, self._folder / f"worker-{number}.log")
        self.workers.append(worker)
        return worker

    def bare_trainer(self, spec: dict[str, Any], output: Path) -> subprocess.Popen[bytes]:
        """Starts the trainer that the workers start, without a service around it."""
        path = output.with_name(f"{output.name}.yaml")
        path.write_text(json.dumps(spec))
        command = [sys.executable, "-m", "egrpo", "train", str(path), "--output", str(output)]
        with output.with_name(f"{output.name}.log").open("wb") as log:
            return subprocess.Popen(command, env={**os.environ, **self.env}, stdout=log, stderr=log)

    def submit(self, spec: dict[str, Any]) -> str:
        answer = self.http.post("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.get(f"/v1/jobs/{job_id}"))

    def listed(self, job_id: str, what: str) -> list[dict[str, Any]]:
        return list(self.get(f"/v1/jobs/{job_id}/{what}?limit=200")["data"])

    def wait_for_status(self, job_id: str, *statuses: str, seconds: float = 240) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (job := self.job(job_id))["status"] not in statuses:
            assert time.monotonic() < deadline, f"timed out: {job}\n{self.told(job_id)}"
            time.sleep(0.05)
        return job

    def wait_for_checkpoint(self, job_id: str, step: int) -> None:
        wait_for(lambda: any(row["step"] >= step for row in self.listed(job_id, "checkpoints")))

    def adapter(self, job_id: str) -> bytes:
        """Downloads the adapter as a user does."""
        (row,) = [row for row in self.listed(job_id, "checkpoints") if row["kind"] == "adapter"]
        (name,) = [file["path"] for file in row["files"] if file["path"].endswith(".safetensors")]
        return self.http.get(f"/v1/jobs/{job_id}/checkpoints/{row['id']}/files/{name}").content

    def told(self, job_id: str) -> str:
        """Returns everything there is to know when a job did not do what it should."""
        files = [f"--- {path.name}\n{path.read_text()}" for path in sorted(self._folder.glob("*.log"))]
        return "\n".join([str(self.job(job_id)["status_reason"]), *files])

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        self._api.terminate()
        self._api.wait()
        self.http.close()


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Returns the condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
    return value
