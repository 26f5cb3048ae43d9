"""GET /v1/jobs/{job_id}/artifacts and each of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from api.artifacts import service
from api.artifacts.schemas import ArtifactBody
from api.dependencies import TheCaller, TheServices, TheSession
from api.downloads import MEDIA_TYPES, Conditions, DownloadQuery, conditions_of, respond
from api.openapi import file_responses, problems
from api.pagination import List, ListQuery

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])


@router.get("", operation_id="listArtifacts", responses=problems(401, 404, 422))
def list_artifacts(
    caller: TheCaller, session: TheSession, job_id: str, query: Annotated[ListQuery, Query()]
) -> List[ArtifactBody]:
    """Files beside the adapter: report, contact sheet, reward curve."""
    return service.page(session, caller.project_id, job_id, query)


@router.get(
    "/{name:path}",
    operation_id="getArtifact",
    response_class=Response,
    responses=file_responses(*MEDIA_TYPES),
)
def get_artifact(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    name: str,
    query: Annotated[DownloadQuery, Query()],
    conditions: Annotated[Conditions, Depends(conditions_of)],
) -> Response:
    """One artifact."""
    stored = service.file(session, caller.project_id, job_id, name)
    return respond(services, stored, conditions, redirect=query.redirect)
