"""Finding, pinning and deleting checkpoints."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api import idempotency
from api.checkpoints.schemas import CheckpointBody, CheckpointsQuery, body_of
from api.downloads import StoredObject
from api.idempotency import Answer
from api.pagination import List
from jobs import checkpoints, jobs
from jobs.settings import Settings
from jobs.tables import Checkpoint, Document, Job


def page(
    session: Session, settings: Settings, project_id: str, job_id: str, query: CheckpointsQuery
) -> List[CheckpointBody]:
    """Returns a page of checkpoints, oldest first.

    Raises:
        NotFound: the project has no such job.
    """
    job = jobs.get(session, project_id, job_id)
    found = checkpoints.page(session, job_id, limit=query.limit, cursor=query.cursor, kind=query.kind)
    data = [_body(settings, job, checkpoint) for checkpoint in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def show(session: Session, settings: Settings, project_id: str, job_id: str, checkpoint_id: str) -> CheckpointBody:
    """Returns one checkpoint.

    Raises:
        NotFound: the project has no such job, or the job no such checkpoint.
    """
    job = jobs.get(session, project_id, job_id)
    return _body(settings, job, checkpoints.get(session, job_id, checkpoint_id))


def pin(
    session: Session, settings: Settings, project_id: str, job_id: str, checkpoint_id: str, key: str | None
) -> Answer:
    """Pins a checkpoint, or returns the answer to the same request before."""

    def effect() -> Document:
        job = jobs.get(session, project_id, job_id, lock=True)
        return _body(settings, job, checkpoints.pin(session, job, checkpoint_id)).model_dump(mode="json")

    request = f"POST /v1/jobs/{job_id}/checkpoints/{checkpoint_id}/pin"
    return idempotency.once(session, project_id, key, request, 200, effect)


def unpin(
    session: Session, settings: Settings, project_id: str, job_id: str, checkpoint_id: str, key: str | None
) -> Answer:
    """Unpins a checkpoint, or returns the answer to the same request before."""

    def effect() -> Document:
        job = jobs.get(session, project_id, job_id, lock=True)
        return _body(settings, job, checkpoints.unpin(session, job, checkpoint_id)).model_dump(mode="json")

    request = f"POST /v1/jobs/{job_id}/checkpoints/{checkpoint_id}/unpin"
    return idempotency.once(session, project_id, key, request, 200, effect)


def delete(session: Session, project_id: str, job_id: str, checkpoint_id: str) -> None:
    """Deletes a checkpoint.

    Raises:
        NotFound: the project has no such job, or the job no such checkpoint.
        CheckpointNeeded: it is pinned, or its job has need of it.
    """
    checkpoints.delete(session, jobs.get(session, project_id, job_id, lock=True), checkpoint_id)


def file(session: Session, project_id: str, job_id: str, checkpoint_id: str, path: str) -> StoredObject:
    """Returns where a file of a checkpoint is.

    Raises:
        NotFound: the project has no such job, the job no such checkpoint, or the checkpoint no such file.
    """
    jobs.get(session, project_id, job_id)
    key, entry = checkpoints.file(session, job_id, checkpoint_id, path)
    return StoredObject(key, PurePosixPath(path).name, entry["size_bytes"], entry["sha256"])


def _body(settings: Settings, job: Job, checkpoint: Checkpoint) -> CheckpointBody:
    return body_of(checkpoint, _expires_at(settings, job, checkpoint))


def _expires_at(settings: Settings, job: Job, checkpoint: Checkpoint) -> datetime | None:
    """Returns when the garbage collector will let go of a checkpoint, if nothing happens before."""
    is_kept = checkpoint.kind != "state" or checkpoint.pinned_at is not None
    if is_kept or settings.retain_states_days is None or job.finished_at is None:
        return None
    return job.finished_at + timedelta(days=settings.retain_states_days)
