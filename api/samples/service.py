"""Finding samples and their images."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.downloads import StoredObject
from api.pagination import List
from api.samples.schemas import SampleBody, SamplesQuery, body_of
from jobs import jobs, samples


def page(session: Session, project_id: str, job_id: str, query: SamplesQuery) -> List[SampleBody]:
    """Returns a page of samples, oldest first.

    Raises:
        NotFound: the project has no such job.
    """
    jobs.get(session, project_id, job_id)
    found = samples.page(session, job_id, **query.model_dump())
    data = [body_of(sample) for sample in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def image(session: Session, project_id: str, job_id: str, sample_id: str) -> StoredObject:
    """Returns where the image of a sample is.

    Raises:
        NotFound: the project has no such job, or the job no such sample.
    """
    jobs.get(session, project_id, job_id)
    sample = samples.get(session, job_id, sample_id)
    name = f"{sample.id}.{sample.content_type.removeprefix('image/')}"
    return StoredObject(
        sample.object_key, name, sample.size_bytes, sample.sha256, content_type=sample.content_type, inline=True
    )
