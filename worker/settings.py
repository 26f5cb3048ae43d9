"""Settings of the worker: those of the service, and what only a worker needs (prefix EGRPO_)."""

import os
import socket
import sys
from datetime import timedelta

from pydantic import Field

from jobs.leases import Retry
from jobs.settings import Settings


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


class WorkerSettings(Settings):
    """Everything that a worker reads from its environment."""

    worker_name: str = Field(default_factory=_owner, min_length=1, max_length=200)
    poll_seconds: float = Field(default=5, gt=0)
    # Between SIGTERM to the trainer and SIGKILL: time to finish a micro-step and write a checkpoint.
    stop_grace_seconds: float = Field(default=60, gt=0)
    stall_seconds: float = Field(default=600, gt=0)
    retry_seconds: float = Field(default=10, gt=0)
    publish_seconds: float = Field(default=1, ge=0)
    # JSON, such as ["accelerate", "launch", "-m", "egrpo", "train"].
    trainer_command: list[str] = Field(default=[sys.executable, "-m", "egrpo", "train"], min_length=1)

    @property
    def lease(self) -> timedelta:
        """How long a job stays a worker's without a renewal."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def retry(self) -> Retry:
        """How soon a lost or crashed job is tried again."""
        return Retry(first=timedelta(seconds=self.retry_seconds))
