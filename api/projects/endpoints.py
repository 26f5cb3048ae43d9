"""POST and GET /v1/projects, GET and PATCH /v1/projects/{project_id}."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from api.dependencies import IdempotencyKeyHeader, RawBody, TheCaller, TheSession, parse_json
from api.entity_tags import IfMatchHeader, tag_of, version_in
from api.openapi import ETAG_HEADER, REPLAYED_HEADER, json_request_body, problems
from api.pagination import List, ListQuery, NoQuery
from api.projects import service
from api.projects.schemas import NewProject, ProjectBody, ProjectChanges, ProjectSummary

router = APIRouter(prefix="/v1/projects", tags=["access"])


@router.post(
    "",
    operation_id="createProject",
    status_code=201,
    response_model=ProjectBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(400, 401, 408, 409, 413, 415, 422)},
    openapi_extra=json_request_body(NewProject),
)
def create_project(
    caller: TheCaller,
    body: RawBody,
    session: TheSession,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Makes a project. Its first key comes from `POST /v1/api-keys?project_id=…`."""
    answer = service.create(session, caller, idempotency_key, parse_json(body))
    return JSONResponse(answer.body, 201, {**answer.headers, "Location": f"/v1/projects/{answer.body['id']}"})


@router.get("", operation_id="listProjects", responses=problems(401, 422))
def list_projects(caller: TheCaller, session: TheSession, query: Annotated[ListQuery, Query()]) -> List[ProjectSummary]:
    """The caller's project; for an administrator all of them, newest first."""
    return service.page(session, caller, query)


@router.get(
    "/{project_id}", operation_id="getProject", responses={200: {"headers": ETAG_HEADER}, **problems(401, 404, 422)}
)
def get_project(
    caller: TheCaller, session: TheSession, response: Response, project_id: str, _query: Annotated[NoQuery, Query()]
) -> ProjectBody:
    """One project: its limits, and what it uses of them."""
    return _tagged(response, service.show(session, caller, project_id))


@router.patch(
    "/{project_id}",
    operation_id="updateProject",
    responses={200: {"headers": ETAG_HEADER}, **problems(400, 401, 404, 408, 412, 413, 415, 422)},
    openapi_extra=json_request_body(ProjectChanges),
)
def update_project(
    _caller: TheCaller,
    response: Response,
    body: RawBody,
    session: TheSession,
    project_id: str,
    _query: Annotated[NoQuery, Query()],
    if_match: IfMatchHeader = None,
) -> ProjectBody:
    """Renames a project or changes its limits. A lower limit stops nothing that runs."""
    return _tagged(response, service.change(session, project_id, parse_json(body), version=version_in(if_match)))


def _tagged(response: Response, project: ProjectBody) -> ProjectBody:
    response.headers["ETag"] = tag_of(project.version, project.model_dump_json())
    return project
