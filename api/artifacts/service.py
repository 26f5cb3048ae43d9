"""Finding artifacts."""

from __future__ import annotations

from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api.artifacts.schemas import ArtifactBody, body_of
from api.downloads import StoredObject
from api.pagination import List, ListQuery, whole_list
from jobs import artifacts, jobs


def page(session: Session, project_id: str, job_id: str, query: ListQuery) -> List[ArtifactBody]:
    """Returns artifacts by name.

    Raises:
        NotFound: the project has no such job.
    """
    jobs.get(session, project_id, job_id)
    data = [body_of(artifact) for artifact in artifacts.all_of(session, job_id)]
    return whole_list(data, query, lambda body: body.name)


def file(session: Session, project_id: str, job_id: str, name: str) -> StoredObject:
    """Returns where an artifact is.

    Raises:
        NotFound: the project has no such job, or the job no such artifact.
    """
    jobs.get(session, project_id, job_id)
    found = artifacts.get(session, job_id, name)
    file_name = PurePosixPath(name).name
    return StoredObject(found.object_key, file_name, found.size_bytes, found.sha256, content_type=found.content_type)
