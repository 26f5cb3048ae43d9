"""GET /v1/jobs/{job_id}/checkpoints, GET and DELETE of one, POST …/pin, …/unpin, and the files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response

from api.checkpoints import service
from api.checkpoints.schemas import CheckpointBody, CheckpointsQuery
from api.dependencies import IdempotencyKeyHeader, TheCaller, TheServices, TheSession
from api.downloads import MEDIA_TYPES, Conditions, DownloadQuery, conditions_of, respond
from api.openapi import REPLAYED_HEADER, file_responses, problems
from api.pagination import List, NoQuery

router = APIRouter(prefix="/v1/jobs/{job_id}/checkpoints", tags=["checkpoints"])


@router.get("", operation_id="listCheckpoints", responses=problems(401, 404, 422))
def list_checkpoints(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    query: Annotated[CheckpointsQuery, Query()],
) -> List[CheckpointBody]:
    """Committed checkpoints, oldest first, each with the sha256 of every file."""
    return service.page(session, services.settings, caller.project_id, job_id, query)


@router.get("/{checkpoint_id}", operation_id="getCheckpoint", responses=problems(401, 404, 422))
def get_checkpoint(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    checkpoint_id: str,
    _query: Annotated[NoQuery, Query()],
) -> CheckpointBody:
    """One checkpoint with its manifest: size and sha256 of every file."""
    return service.show(session, services.settings, caller.project_id, job_id, checkpoint_id)


@router.post(
    "/{checkpoint_id}/pin",
    operation_id="pinCheckpoint",
    response_model=CheckpointBody,
    responses={200: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def pin_checkpoint(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    checkpoint_id: str,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Keeps a checkpoint whatever `checkpoint.keep_last` and `keep_best` say, until it is unpinned."""
    answer = service.pin(session, services.settings, caller.project_id, job_id, checkpoint_id, idempotency_key)
    return JSONResponse(answer.body, 200, answer.headers)


@router.post(
    "/{checkpoint_id}/unpin",
    operation_id="unpinCheckpoint",
    response_model=CheckpointBody,
    responses={200: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def unpin_checkpoint(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    checkpoint_id: str,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Leaves a checkpoint to retention again."""
    answer = service.unpin(session, services.settings, caller.project_id, job_id, checkpoint_id, idempotency_key)
    return JSONResponse(answer.body, 200, answer.headers)


@router.delete(
    "/{checkpoint_id}", operation_id="deleteCheckpoint", status_code=204, responses=problems(401, 404, 409, 422)
)
def delete_checkpoint(
    caller: TheCaller, session: TheSession, job_id: str, checkpoint_id: str, _query: Annotated[NoQuery, Query()]
) -> None:
    """Deletes a checkpoint. Refused for a pinned one, the job's adapter, and what a job would resume from."""
    service.delete(session, caller.project_id, job_id, checkpoint_id)


@router.get(
    "/{checkpoint_id}/files/{path:path}",
    operation_id="getCheckpointFile",
    response_class=Response,
    responses=file_responses(*MEDIA_TYPES),
)
def get_checkpoint_file(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    checkpoint_id: str,
    path: str,
    query: Annotated[DownloadQuery, Query()],
    conditions: Annotated[Conditions, Depends(conditions_of)],
) -> Response:
    """One file. `Range` continues a cut download; the ETag is the file's sha256."""
    stored = service.file(session, caller.project_id, job_id, checkpoint_id, path)
    return respond(services, stored, conditions, redirect=query.redirect)
