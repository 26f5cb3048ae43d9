"""The folder of one attempt: made empty, held by a lock, removed when it is worth nothing any more.

Only what was committed to the store counts, so a folder without a living worker is rubbish. The lock is the kernel's: a
worker that is killed lets go of it, and the next worker that starts on the machine finds the folder unheld and removes
it. Several workers may share one work folder.
"""

import fcntl
import json
import logging
import os
import shutil
from pathlib import Path

from jobs.errors import SettingsError
from jobs.leases import Claim
from jobs.spec import JobSpec
from jobs.tables import Document

log = logging.getLogger(__name__)

_LOCK = ".held"


class RunFolder:
    """`WORK_DIR/<job>/<epoch>`."""

    def __init__(self, work_dir: Path, claim: Claim) -> None:
        """Names the folder; nothing is made before `prepare`.

        Args:
            work_dir: The worker's folder for all runs.
            claim: Whose folder it is.
        """
        self.path = work_dir / claim.job_id / str(claim.epoch)
        self.spec_path = self.path / "job.yaml"  # JSON is YAML.
        self._lock_fd: int | None = None

    def prepare(self, spec: Document) -> None:
        """Makes the folder, empty but for the trainer's spec.

        Args:
            spec: The job's, with all prompts written out.

        Raises:
            OSError: The disk is full or read-only.
            ValidationError: The stored spec is not one that this worker knows.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        self._lock_fd = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        train_spec = JobSpec.model_validate(spec).train_spec()
        self.spec_path.write_text(json.dumps(train_spec.model_dump(mode="json"), indent=1))

    def remove(self) -> None:
        """Removes everything; the job's folder too, if this was its last attempt here."""
        shutil.rmtree(self.path, ignore_errors=True)
        _remove_if_empty(self.path.parent)
        self._let_go()

    def keep_for_inspection(self) -> None:
        """Removes what is big and in the store; logs, spec and plan stay for whoever looks into a failure."""
        for name in ("checkpoints", "samples", ".spool"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / _LOCK).unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def check_work_dir(work_dir: Path) -> None:
    """Makes the work folder.

    Raises:
        SettingsError: It cannot be made or written.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"EGRPO_WORK_DIR: {work_dir} cannot be made: {error.strerror}") from None
    if not os.access(work_dir, os.W_OK | os.X_OK):
        raise SettingsError(f"EGRPO_WORK_DIR: {work_dir} cannot be written")


def free_bytes(work_dir: Path) -> int:
    """Returns how much room there is for run folders."""
    existing = next(folder for folder in (work_dir, *work_dir.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def sweep(work_dir: Path) -> None:
    """Removes the folders that killed workers left behind."""
    for lock in work_dir.glob(f"*/*/{_LOCK}"):
        if not _is_held(lock):
            log.info("event=left_folder_removed path=%s", lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)
            _remove_if_empty(lock.parent.parent)


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True  # Somebody else is removing it, or it is not ours to touch.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
