"""POST /v1/jobs/validate."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import RawBody, TheCaller, TheSession, parse_json
from api.openapi import json_request_body, problems
from api.pagination import NoQuery
from api.validation import service
from api.validation.schemas import ValidationBody
from jobs.spec import JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "/validate",
    operation_id="validateJob",
    responses=problems(400, 401, 408, 413, 415, 422),
    openapi_extra=json_request_body(JobSpec),
)
def validate_job(
    caller: TheCaller, body: RawBody, session: TheSession, _query: Annotated[NoQuery, Query()]
) -> ValidationBody:
    """What a job would do and take. Nothing is stored; a wrong spec gets the problem that `createJob` gives."""
    return service.validate(session, caller.project_id, parse_json(body))
