"""A worker on the real servers, with a scripted trainer as its outer edge; the fixture is in `conftest`."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
from scripted_trainer import whole_lines
from sqlalchemy import Engine, func, select, update

from jobs import api_keys, datasets, jobs
from jobs.db import SessionFactory, transaction
from jobs.spec import parse
from jobs.store import ObjectStore
from jobs.tables import Attempt, Checkpoint, Event, Job, Metric
from worker.runner import Runner
from worker.settings import WorkerSettings

SCRIPT = Path(__file__).with_name("scripted_trainer.py")
Row = TypeVar("Row")
Start = Callable[..., subprocess.Popen[bytes]]  # Of a worker, by its environment.


class SkippingClock:
    """A steady clock that a test puts forward: what is over by it is over at once, however busy the machine is."""

    def __init__(self) -> None:
        self._skipped_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._skipped_s

    def skip(self, seconds: float) -> None:
        self._skipped_s += seconds


def is_alive(pid: int) -> bool:
    """Returns whether a process runs; one that has ended and was not asked for its status yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Returns the condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)
    return value


@dataclass
class Bench:
    """One database, one bucket, one scenario, and any number of workers."""

    settings: WorkerSettings
    sessions: SessionFactory
    store: ObjectStore
    scenario: Path
    runners: list[Runner] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)

    def script(self, **scenario: Any) -> None:
        """Tells the trainer what to do in the attempts to come."""
        Path(f"{self.scenario}.go_on").unlink(missing_ok=True)
        self.scenario.write_text(json.dumps(scenario))

    def go_on(self) -> None:
        """Lets a trainer go on that `waits`."""
        Path(f"{self.scenario}.go_on").touch()

    def submit(self, project: str = "default", name: str = "run", **fields: Any) -> str:
        spec = parse(
            {
                "name": name,
                "base_model": "tiny-flux-shapes",
                "prompts": {"inline": ["a red circle"] * 20},
                "reward": {"components": [{"type": "shapes"}]},
                **fields,
            }
        )
        with transaction(self.sessions) as session:
            return jobs.create(session, api_keys.project_named(session, project), spec).id

    def submit_by_dataset(self, prompts: list[str], project: str = "default") -> str:
        with transaction(self.sessions) as session:
            project_id = api_keys.project_named(session, project)
            dataset = datasets.create(session, project_id, "shapes", {"train": prompts}, {})
            spec = parse(
                {
                    "name": "run",
                    "base_model": "tiny-flux-shapes",
                    "prompts": {"dataset": dataset.id},
                    "reward": {"components": [{"type": "shapes"}]},
                },
                lambda reference: datasets.prompts(session, project_id, reference),
            )
            return jobs.create(session, project_id, spec).id

    def runner(self, name: str = "worker", **changes: Any) -> Runner:
        """Returns a worker that has not been started."""
        settings = self.settings.model_copy(update={"worker_name": name, **changes})
        runner = Runner(settings, self.sessions, self.store)
        self.runners.append(runner)
        return runner

    def run(self, **changes: Any) -> None:
        """Runs jobs in this thread until none is eligible."""
        self.runner(**changes).run_until_idle()

    def end_back_off(self, job_id: str) -> None:
        """Makes a job eligible that waits for its next attempt."""
        with transaction(self.sessions) as session:
            session.execute(update(Job).where(Job.id == job_id).values(not_before=None))

    def end_lease(self, job_id: str) -> None:
        """Lets the lease of a job run out by the database's word, whatever its worker thinks."""
        with transaction(self.sessions) as session:
            session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=func.clock_timestamp()))

    def in_background(self, runner: Runner) -> threading.Thread:
        thread = threading.Thread(target=runner.run_until_idle, daemon=True)
        thread.start()
        return thread

    def job(self, job_id: str) -> Job:
        with transaction(self.sessions) as session:
            job = session.get(Job, job_id)
            assert job is not None
            return job

    def rows(self, table: type[Row], job_id: str) -> Sequence[Row]:
        with transaction(self.sessions) as session:
            statement = select(table).where(table.job_id == job_id)  # type: ignore[attr-defined]
            return session.scalars(statement).all()

    def attempts(self, job_id: str) -> list[Attempt]:
        return sorted(self.rows(Attempt, job_id), key=lambda row: row.epoch)

    def events(self, job_id: str, type_: str | None = None) -> list[Event]:
        found = sorted(self.rows(Event, job_id), key=lambda row: row.seq)
        assert [event.seq for event in found] == list(range(1, len(found) + 1)), "the numbers have a gap"
        return [event for event in found if type_ in (None, event.type)]

    def statuses(self, job_id: str) -> list[str]:
        shown = [event.data["status"] for event in self.events(job_id, "status")]
        return [status for index, status in enumerate(shown) if index == 0 or shown[index - 1] != status]

    def metrics(self, job_id: str, name: str = "loss") -> dict[int, float]:
        return {row.step: row.value for row in self.rows(Metric, job_id) if row.name == name}

    def checkpoints(self, job_id: str, kind: str = "state") -> list[Checkpoint]:
        """Returns what a job can resume from or a user download, the oldest first."""
        rows = [row for row in self.rows(Checkpoint, job_id) if row.kind == kind and row.deleted_at is None]
        return sorted(rows, key=lambda row: (row.epoch, row.step))

    def committed(self, job_id: str) -> list[int]:
        """Returns the steps of all states that were ever committed."""
        return [e.data["step"] for e in self.events(job_id, "checkpoint") if e.data["kind"] == "state"]

    def adapter(self, job_id: str) -> bytes:
        """Returns the adapter's bytes from the store."""
        (row,) = self.checkpoints(job_id, "adapter")
        return b"".join(self.store.get(f"{row.object_prefix}/{row.files[0]['path']}").chunks())

    def log_of(self, name: str) -> str:
        """Returns a log file that lies beside the scenario."""
        path = self.scenario.with_name(name)
        return path.read_text() if path.exists() else ""

    def trainers(self) -> list[dict[str, Any]]:
        """Returns pid, environment and arguments of every trainer that was started."""
        return whole_lines(Path(f"{self.scenario}.attempts"))
