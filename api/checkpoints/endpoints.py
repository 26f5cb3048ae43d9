"""GET /v1/jobs/{job_id}/checkpoints and their files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from api.checkpoints import service
from api.checkpoints.schemas import CheckpointBody, CheckpointsQuery
from api.dependencies import TheCaller, TheServices, TheSession
from api.downloads import Conditions, DownloadQuery, conditions_of, respond
from api.openapi import file_responses, problems
from api.pagination import List

router = APIRouter(prefix="/v1/jobs/{job_id}/checkpoints", tags=["checkpoints"])


@router.get("", operation_id="listCheckpoints", responses=problems(401, 404, 422))
def list_checkpoints(
    caller: TheCaller, session: TheSession, job_id: str, query: Annotated[CheckpointsQuery, Query()]
) -> List[CheckpointBody]:
    """Committed checkpoints, oldest first, each with the sha256 of every file."""
    return service.page(session, caller.project_id, job_id, query)


@router.get(
    "/{checkpoint_id}/files/{path:path}",
    operation_id="getCheckpointFile",
    response_class=Response,
    responses={
        302: {"description": "A signed link, with `redirect=true`"},
        **file_responses("application/octet-stream"),
    },
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
