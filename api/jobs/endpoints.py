"""POST and GET /v1/jobs, GET and PATCH /v1/jobs/{job_id}, POST …/cancel, …/pause, …/resume, …/retry."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

from api.answers import model_response
from api.dependencies import IdempotencyKeyHeader, RawBody, TheCaller, TheServices, TheSession, parse_json
from api.entity_tags import IfMatchHeader, IfNoneMatchHeader, matches, tag_of, version_in
from api.jobs import service
from api.jobs.schemas import JobBody, JobsQuery, JobSummary
from api.openapi import ETAG_HEADER, NOT_MODIFIED, REPLAYED_HEADER, json_request_body, problems
from api.pagination import List, NoQuery
from jobs.spec import JobChanges, JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    operation_id="createJob",
    status_code=201,
    response_model=JobBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(400, 401, 408, 409, 413, 415, 422)},
    openapi_extra=json_request_body(JobSpec),
)
def create_job(
    caller: TheCaller,
    services: TheServices,
    body: RawBody,
    session: TheSession,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Queues an alignment job. Everything but `base_model`, `prompts` and `reward` has a default that works."""
    answer = service.create(session, caller.project_id, idempotency_key, parse_json(body))
    headers = {**answer.headers, "Location": f"/v1/jobs/{answer.body['id']}"}
    # The hint goes out after the commit and after the answer: a broker that is down delays nobody.
    return JSONResponse(answer.body, 201, headers, background=BackgroundTask(services.hints.send))


@router.get("", operation_id="listJobs", response_model=List[JobSummary], responses=problems(401, 422))
def list_jobs(caller: TheCaller, session: TheSession, query: Annotated[JobsQuery, Query()]) -> Response:
    """Jobs of the project, newest first, without their specs."""
    return model_response(service.page(session, caller.project_id, query))


@router.get(
    "/{job_id}",
    operation_id="getJob",
    response_model=JobBody,
    responses={200: {"headers": ETAG_HEADER}, 304: NOT_MODIFIED, **problems(401, 404, 422)},
)
def get_job(
    caller: TheCaller,
    session: TheSession,
    job_id: str,
    _query: Annotated[NoQuery, Query()],
    if_none_match: IfNoneMatchHeader = None,
) -> Response:
    """One job: status, progress, place in the queue, and the spec with every default filled in."""
    job = service.show(session, caller.project_id, job_id)
    tag = _tag(job)
    if matches(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return model_response(job, {"ETag": tag})


@router.patch(
    "/{job_id}",
    operation_id="updateJob",
    responses={200: {"headers": ETAG_HEADER}, **problems(400, 401, 404, 408, 412, 413, 415, 422)},
    openapi_extra=json_request_body(JobChanges),
)
def update_job(
    caller: TheCaller,
    response: Response,
    body: RawBody,
    session: TheSession,
    job_id: str,
    _query: Annotated[NoQuery, Query()],
    if_match: IfMatchHeader = None,
) -> JobBody:
    """Renames a job, or replaces its metadata or limits, at any time. Its spec stays what was submitted."""
    job = service.change(session, caller.project_id, job_id, parse_json(body), version=version_in(if_match))
    response.headers["ETag"] = _tag(job)
    return job


def _tag(job: JobBody) -> str:
    # The spec has up to 10 MB and never changes; the seconds until a job's turn change with every look at them.
    return tag_of(job.version, job.model_dump_json(exclude={"spec": True, "queue": {"eta_seconds"}}))


@router.post(
    "/{job_id}/cancel",
    operation_id="cancelJob",
    response_model=JobBody,
    responses={200: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def cancel_job(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Cancels a queued job at once; a running one becomes `cancelling`, and its last checkpoint is kept."""
    deadline = timedelta(seconds=services.settings.cancel_deadline_seconds)
    answer = service.cancel(session, caller.project_id, job_id, idempotency_key, deadline=deadline)
    return JSONResponse(answer.body, 200, answer.headers)


@router.post(
    "/{job_id}/pause",
    operation_id="pauseJob",
    response_model=JobBody,
    responses={200: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def pause_job(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Pauses a queued job at once; a running one becomes `pausing`, commits a checkpoint and frees its worker."""
    deadline = timedelta(seconds=services.settings.cancel_deadline_seconds)
    answer = service.pause(session, caller.project_id, job_id, idempotency_key, deadline=deadline)
    return JSONResponse(answer.body, 200, answer.headers)


@router.post(
    "/{job_id}/resume",
    operation_id="resumeJob",
    response_model=JobBody,
    responses={200: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def resume_job(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Queues a paused job again; it goes on from its last checkpoint."""
    answer = service.resume(session, caller.project_id, job_id, idempotency_key)
    return JSONResponse(answer.body, 200, answer.headers, background=BackgroundTask(services.hints.send))


@router.post(
    "/{job_id}/retry",
    operation_id="retryJob",
    response_model=JobBody,
    responses={200: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def retry_job(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Queues a failed or cancelled job again; it goes on from its last checkpoint, or starts again without one."""
    answer = service.retry(session, caller.project_id, job_id, idempotency_key)
    return JSONResponse(answer.body, 200, answer.headers, background=BackgroundTask(services.hints.send))
