"""GET /v1/jobs/{job_id}/samples and their images."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from api.dependencies import TheCaller, TheServices, TheSession
from api.downloads import Conditions, DownloadQuery, conditions_of, respond
from api.openapi import file_responses, problems
from api.pagination import List
from api.samples import service
from api.samples.schemas import SampleBody, SamplesQuery

router = APIRouter(prefix="/v1/jobs/{job_id}/samples", tags=["samples"])


@router.get("", operation_id="listSamples", responses=problems(401, 404, 422))
def list_samples(
    caller: TheCaller, session: TheSession, job_id: str, query: Annotated[SamplesQuery, Query()]
) -> List[SampleBody]:
    """Images that the job drew, oldest first."""
    return service.page(session, caller.project_id, job_id, query)


@router.get(
    "/{sample_id}/image",
    operation_id="getSampleImage",
    response_class=Response,
    responses=file_responses("image/png"),
)
def get_sample_image(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    job_id: str,
    sample_id: str,
    query: Annotated[DownloadQuery, Query()],
    conditions: Annotated[Conditions, Depends(conditions_of)],
) -> Response:
    """The image of a sample."""
    stored = service.image(session, caller.project_id, job_id, sample_id)
    return respond(services, stored, conditions, redirect=query.redirect)
