"""Files beside the adapter: report, contact sheet, reward curve.

Writers hold the job by `leases.guard`; readers have found the job in their project.
"""

from __future__ import annotations

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.store import StoredFile
from jobs.tables import Artifact


def put(session: Session, job_id: str, epoch: int, name: str, stored: StoredFile, content_type: str) -> None:
    """Writes an artifact; a later one of the same name replaces it."""
    values = {
        "epoch": epoch,
        "object_key": stored.key,
        "content_type": content_type,
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "created_at": func.now(),
    }
    statement = insert(Artifact).values(job_id=job_id, name=name, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[Artifact.job_id, Artifact.name], set_=values))


def all_of(session: Session, job_id: str) -> list[Artifact]:
    """Returns the artifacts by name; there are a handful."""
    return list(session.scalars(_OF_JOB, {"job_id": job_id}))


_OF_JOB = select(Artifact).where(Artifact.job_id == bindparam("job_id")).order_by(Artifact.name)


def get(session: Session, job_id: str, name: str) -> Artifact:
    """Returns one artifact.

    Raises:
        NotFound: the job has none of that name.
    """
    artifact = session.scalar(select(Artifact).where(Artifact.job_id == job_id, Artifact.name == name))
    if artifact is None:
        raise NotFound(f"the job has no artifact {name!r}")
    return artifact
