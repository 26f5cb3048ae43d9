"""Settings of the worker: those of the service, and what only a worker needs (prefix EGRPO_)."""

import os
import socket
import sys
from datetime import timedelta

from pydantic import Field

from jobs.queue import Pool
from jobs.retries import Retry
from jobs.settings import Settings
from jobs.spec import GPUType
from worker import gpus


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


class WorkerSettings(Settings):
    """Everything that a worker reads from its environment."""

    worker_name: str = Field(default_factory=_owner, min_length=1, max_length=200)
    # What this worker offers; both are asked of the driver if they are not set. Jobs name the type as it is here.
    gpu_type: GPUType | None = None
    num_gpus: int | None = Field(default=None, ge=1, le=8)
    poll_seconds: float = Field(default=5, gt=0)
    # Between SIGTERM to the trainer and SIGKILL: time to finish a micro-step and write a checkpoint.
    stop_grace_seconds: float = Field(default=60, gt=0)
    stall_seconds: float = Field(default=600, gt=0)
    retry_seconds: float = Field(default=10, gt=0)
    publish_seconds: float = Field(default=1, ge=0)
    # With less in its work folder a worker takes no job: a checkpoint would not fit, and another worker may have room.
    min_free_bytes: int = Field(default=2**30, ge=0)
    # Of `python -m worker maintenance`: how soon another such process takes over a task, and time to end one in.
    maintenance_lease_seconds: float = Field(default=60, gt=0)
    maintenance_grace_seconds: float = Field(default=5, ge=0)
    audit_days: int = Field(default=400, ge=1)
    gc_seconds: float = Field(default=6 * 3600, gt=0)
    # What the hub's cache of this machine may take; not set: whatever it takes.
    model_cache_gb: float | None = Field(default=None, gt=0)
    # JSON, such as ["accelerate", "launch", "-m", "egrpo", "train"].
    trainer_command: list[str] = Field(default=[sys.executable, "-m", "egrpo", "train"], min_length=1)

    @property
    def lease(self) -> timedelta:
        """How long a job stays a worker's without a renewal."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def pause_grace(self) -> timedelta:
        """How long the worker of a job at a limit of its own has before the pause is forced."""
        return timedelta(seconds=self.cancel_deadline_seconds)

    @property
    def retry(self) -> Retry:
        """How soon a lost or crashed job is tried again."""
        return Retry(first=timedelta(seconds=self.retry_seconds))

    def pool(self) -> Pool:
        """Returns which jobs this worker takes; may start a program that asks the driver."""
        if self.gpu_type is not None and self.num_gpus is not None:
            return Pool(self.gpu_type, self.num_gpus)
        found = gpus.detect()
        return Pool(self.gpu_type or found.gpu_type, self.num_gpus or found.num_gpus)
