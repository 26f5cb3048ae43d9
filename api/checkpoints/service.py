"""Finding checkpoints and their files."""

from __future__ import annotations

from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api.checkpoints.schemas import CheckpointBody, CheckpointsQuery, body_of
from api.downloads import StoredObject
from api.pagination import List
from jobs import checkpoints, jobs


def page(session: Session, project_id: str, job_id: str, query: CheckpointsQuery) -> List[CheckpointBody]:
    """Returns a page of checkpoints, oldest first.

    Raises:
        NotFound: the project has no such job.
    """
    jobs.get(session, project_id, job_id)
    found = checkpoints.page(session, job_id, limit=query.limit, cursor=query.cursor, kind=query.kind)
    data = [body_of(checkpoint) for checkpoint in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def file(session: Session, project_id: str, job_id: str, checkpoint_id: str, path: str) -> StoredObject:
    """Returns where a file of a checkpoint is.

    Raises:
        NotFound: the project has no such job, the job no such checkpoint, or the checkpoint no such file.
    """
    jobs.get(session, project_id, job_id)
    key, entry = checkpoints.file(session, job_id, checkpoint_id, path)
    return StoredObject(key, PurePosixPath(path).name, entry["size_bytes"], entry["sha256"])
