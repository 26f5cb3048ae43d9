"""Brings a job's last committed checkpoint back onto this machine.

Only committed rows count, never a folder that happens to lie here. Every file is verified again; a checkpoint that is
damaged or incomplete in the store is told in the job's log and the one before it is taken. A store that is down is
something else: it is waited for, because falling back then would throw work away.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from jobs import checkpoints, events, leases
from jobs.db import SessionFactory, transaction
from jobs.errors import ChecksumMismatch, ObjectMissing, Unavailable
from jobs.leases import Claim
from jobs.store import ObjectStore
from jobs.tables import Checkpoint
from worker.fence import Fence
from worker.protocol import ProtocolError, path_inside

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_BACKOFF_S = 1.0
_DOWNLOAD_TRIES = 3


class Interrupted(Exception):  # noqa: N818 - not an error: somebody asked.
    """The restoring was given up because the attempt is to end."""


def restore(
    sessions: SessionFactory,
    store: ObjectStore,
    claim: Claim,
    fence: Fence,
    run_dir: Path,
    give_up: Callable[[], bool],
) -> int | None:
    """Downloads the newest whole checkpoint into `run_dir/checkpoints` and returns its step, or None to start at 0.

    Args:
        sessions: Makes database sessions.
        store: Where the files are.
        claim: The job's claim.
        fence: Guards what is written.
        run_dir: The new attempt's run folder.
        give_up: Asked between tries and files.

    Raises:
        Interrupted: `give_up` said so.
        LeaseLost: The epoch is over.
    """
    for checkpoint in waiting(partial(_committed, sessions, claim), give_up):
        try:
            waiting(partial(_download, store, checkpoint, run_dir, give_up), give_up)
        except (ChecksumMismatch, ObjectMissing, ProtocolError) as error:
            log.warning("event=checkpoint_unusable job_id=%s step=%d error=%s", claim.job_id, checkpoint.step, error)
            message = f"the checkpoint of step {checkpoint.step} cannot be used, trying the one before: {error}"
            waiting(partial(_tell, sessions, claim, fence, message), give_up)
        else:
            waiting(partial(_note, sessions, claim, fence, checkpoint.step), give_up)
            return checkpoint.step
    return None


def waiting(action: Callable[[], Result], give_up: Callable[[], bool]) -> Result:
    """Returns what the action returns, repeating it while the store or the database is down.

    An attempt that ended for it would count against the job, which is not at fault.

    Raises:
        Interrupted: `give_up` said so.
    """
    while not give_up():
        try:
            return action()
        except Unavailable as error:
            log.warning("event=start_waits error=%s", error)
            time.sleep(_BACKOFF_S)
    raise Interrupted


def _committed(sessions: SessionFactory, claim: Claim) -> Sequence[Checkpoint]:
    """Returns the job's states, the best choice first; one that was made for another spec is of no use."""
    with transaction(sessions) as session:
        rows = checkpoints.of_kind(session, claim.job_id, "state")
    return [row for row in rows if row.spec_digest == claim.spec_digest]


def _download(store: ObjectStore, checkpoint: Checkpoint, run_dir: Path, give_up: Callable[[], bool]) -> None:
    """Downloads into a folder that gets its name when it is whole, so that the trainer never sees half of it."""
    incoming = run_dir / "checkpoints" / ".incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    for file in checkpoint.files:
        if give_up():
            raise Interrupted
        target = path_inside(incoming, file["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        _download_file(store, f"{checkpoint.object_prefix}/{file['path']}", target, file["sha256"])
    incoming.rename(run_dir / "checkpoints" / f"step-{checkpoint.step:06d}")


def _download_file(store: ObjectStore, key: str, target: Path, sha256: str) -> None:
    """Downloads a file, again if it arrives damaged: what the store holds may be whole, and falling back costs work."""
    for _ in range(_DOWNLOAD_TRIES - 1):
        try:
            return store.download(key, target, sha256=sha256)
        except ChecksumMismatch as error:
            log.warning("event=download_damaged error=%s", error)
    return store.download(key, target, sha256=sha256)


def _tell(sessions: SessionFactory, claim: Claim, fence: Fence, message: str) -> None:
    with transaction(sessions) as session:
        fence.pass_through(session)
        events.append(session, claim.job_id, "log", {"level": "warning", "message": message})


def _note(sessions: SessionFactory, claim: Claim, fence: Fence, step: int) -> None:
    with transaction(sessions) as session:
        fence.pass_through(session)
        leases.note_resumed(session, claim, step)
        events.append(session, claim.job_id, "log", {"level": "info", "message": f"resuming from step {step}"})
