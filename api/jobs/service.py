"""What the endpoints of jobs do: one transaction each, the caller's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from api import idempotency
from api.artifacts.schemas import body_of as artifact_body
from api.idempotency import Answer
from api.jobs.schemas import JobBody, JobsQuery, JobSummary, body_of, summary_of
from api.pagination import List
from jobs import artifacts, datasets, job_lists, jobs, secrets
from jobs.job_lists import JobFilter
from jobs.queue_places import queue_places
from jobs.spec import JobChanges, checked, parse
from jobs.tables import Document, Job


def create(session: Session, project_id: str, key: str | None, document: Any) -> Answer:
    """Queues a job, or returns the answer to the same request before.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
    """

    def effect() -> Document:
        spec = parse(
            document,
            lambda reference: datasets.prompts(session, project_id, reference),
            lambda secret_id: secrets.exists(session, project_id, secret_id),
        )
        job = jobs.create(session, project_id, spec)
        return body_of(job, queue_places(session, [job])[job.id], []).model_dump(mode="json")

    return idempotency.once(session, project_id, key, ["POST /v1/jobs", document], 201, effect)


def show(session: Session, project_id: str, job_id: str) -> JobBody:
    """Returns one job."""
    return _body(session, jobs.get(session, project_id, job_id, with_spec=True))


def change(session: Session, project_id: str, job_id: str, document: Any, *, version: int | None) -> JobBody:
    """Changes name or metadata of a job.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
    """
    return _body(session, jobs.change(session, project_id, job_id, checked(JobChanges, document), version=version))


def page(session: Session, project_id: str, query: JobsQuery) -> List[JobSummary]:
    """Returns a page of jobs."""
    which = JobFilter(
        statuses=query.status,
        name=query.name,
        base_model=query.base_model,
        created_after=query.created_after,
        created_before=query.created_before,
        metadata=query.metadata,
    )
    found = job_lists.page(
        session, project_id, which, limit=query.limit, cursor=query.cursor, oldest_first=query.order == "asc"
    )
    places = queue_places(session, found.items)
    data = [summary_of(job, places.get(job.id)) for job in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def cancel(session: Session, project_id: str, job_id: str, key: str | None, *, deadline: timedelta) -> Answer:
    """Cancels a job, or asks its worker to; or returns the answer to the same request before."""

    def effect() -> Document:
        return _body(session, jobs.cancel(session, project_id, job_id, deadline=deadline)).model_dump(mode="json")

    return idempotency.once(session, project_id, key, f"POST /v1/jobs/{job_id}/cancel", 200, effect)


def pause(session: Session, project_id: str, job_id: str, key: str | None, *, deadline: timedelta) -> Answer:
    """Pauses a job, or asks its worker to; or returns the answer to the same request before."""

    def effect() -> Document:
        return _body(session, jobs.pause(session, project_id, job_id, deadline=deadline)).model_dump(mode="json")

    return idempotency.once(session, project_id, key, f"POST /v1/jobs/{job_id}/pause", 200, effect)


def resume(session: Session, project_id: str, job_id: str, key: str | None) -> Answer:
    """Queues a paused job again, or returns the answer to the same request before."""

    def effect() -> Document:
        return _body(session, jobs.resume(session, project_id, job_id)).model_dump(mode="json")

    return idempotency.once(session, project_id, key, f"POST /v1/jobs/{job_id}/resume", 200, effect)


def retry(session: Session, project_id: str, job_id: str, key: str | None) -> Answer:
    """Queues a job that failed or was cancelled again, or returns the answer to the same request before."""

    def effect() -> Document:
        return _body(session, jobs.retry(session, project_id, job_id)).model_dump(mode="json")

    return idempotency.once(session, project_id, key, f"POST /v1/jobs/{job_id}/retry", 200, effect)


def _body(session: Session, job: Job) -> JobBody:
    place = queue_places(session, [job]).get(job.id)
    return body_of(job, place, [artifact_body(artifact) for artifact in artifacts.all_of(session, job.id)])
