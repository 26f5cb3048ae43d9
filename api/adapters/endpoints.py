"""GET /v1/adapters, GET and DELETE of one, and the files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from api.adapters import service
from api.adapters.schemas import AdapterBody, AdaptersQuery
from api.dependencies import TheCaller, TheServices, TheSession
from api.downloads import MEDIA_TYPES, Conditions, DownloadQuery, conditions_of, respond
from api.openapi import file_responses, problems
from api.pagination import List, NoQuery

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])


@router.get("", operation_id="listAdapters", responses=problems(401, 422))
def list_adapters(
    caller: TheCaller, session: TheSession, query: Annotated[AdaptersQuery, Query()]
) -> List[AdapterBody]:
    """Adapters of the jobs that succeeded, those of the newest jobs first."""
    return service.page(session, caller.project_id, query)


@router.get("/{adapter_id}", operation_id="getAdapter", responses=problems(401, 404, 422))
def get_adapter(
    caller: TheCaller, session: TheSession, adapter_id: str, _query: Annotated[NoQuery, Query()]
) -> AdapterBody:
    """One adapter: what it was made from, its formats, and size and sha256 of every file."""
    return service.show(session, caller.project_id, adapter_id)


@router.delete("/{adapter_id}", operation_id="deleteAdapter", status_code=204, responses=problems(401, 404, 409, 422))
def delete_adapter(
    caller: TheCaller, session: TheSession, adapter_id: str, _query: Annotated[NoQuery, Query()]
) -> None:
    """Deletes an adapter for good. Its job stays, with metrics, samples and checkpoints. Refused for a pinned one."""
    service.delete(session, caller.project_id, adapter_id)


@router.get(
    "/{adapter_id}/files/{path:path}",
    operation_id="getAdapterFile",
    response_class=Response,
    responses=file_responses(*MEDIA_TYPES),
)
def get_adapter_file(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    adapter_id: str,
    path: str,
    query: Annotated[DownloadQuery, Query()],
    conditions: Annotated[Conditions, Depends(conditions_of)],
) -> Response:
    """One file. `Range` continues a cut download; the ETag is the file's sha256."""
    stored = service.file(session, caller.project_id, adapter_id, path)
    return respond(services, stored, conditions, redirect=query.redirect)
