"""POST, GET /v1/datasets; GET, DELETE /v1/datasets/{dataset_id}; GET …/prompts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response

from api.datasets import service
from api.datasets.files import JSON_LINES, PLAIN_TEXT
from api.datasets.schemas import DatasetBody, DatasetsQuery, NewDataset, PromptsQuery, UploadQuery
from api.dependencies import IdempotencyKeyHeader, TheCaller, TheSession, Upload, upload_of
from api.openapi import REPLAYED_HEADER, json_request_body, problems
from api.pagination import List, NoQuery

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
_MEDIA_TYPES = ("application/json", *sorted(JSON_LINES), *sorted(PLAIN_TEXT))
_BODY = json_request_body(NewDataset)
_BODY["requestBody"]["content"].update({type_: {"schema": {"type": "string"}} for type_ in _MEDIA_TYPES[1:]})
PromptFile = Annotated[Upload, Depends(upload_of(*_MEDIA_TYPES))]


@router.post(
    "",
    operation_id="createDataset",
    status_code=201,
    response_model=DatasetBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(400, 401, 408, 409, 413, 415, 422)},
    openapi_extra=_BODY,
)
def create_dataset(
    caller: TheCaller,
    upload: PromptFile,
    session: TheSession,
    query: Annotated[UploadQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Stores a prompt set: as JSON, or as a file of JSON Lines (`{"prompt", "split"}`) or of one prompt a line."""
    answer = service.create(session, caller.project_id, idempotency_key, upload, query.name)
    return JSONResponse(answer.body, 201, {**answer.headers, "Location": f"/v1/datasets/{answer.body['id']}"})


@router.get("", operation_id="listDatasets", responses=problems(401, 422))
def list_datasets(
    caller: TheCaller, session: TheSession, query: Annotated[DatasetsQuery, Query()]
) -> List[DatasetBody]:
    """Datasets of the project, newest first."""
    return service.page(session, caller.project_id, query)


@router.get("/{dataset_id}", operation_id="getDataset", responses=problems(401, 404, 422))
def get_dataset(
    caller: TheCaller, session: TheSession, dataset_id: str, _query: Annotated[NoQuery, Query()]
) -> DatasetBody:
    """One dataset: its splits and their sizes."""
    return service.show(session, caller.project_id, dataset_id)


@router.get("/{dataset_id}/prompts", operation_id="listDatasetPrompts", responses=problems(401, 404, 422))
def list_dataset_prompts(
    caller: TheCaller, session: TheSession, dataset_id: str, query: Annotated[PromptsQuery, Query()]
) -> List[str]:
    """The prompts of a split, in their order."""
    return service.prompts(session, caller.project_id, dataset_id, query)


@router.delete("/{dataset_id}", operation_id="deleteDataset", status_code=204, responses=problems(401, 404, 409, 422))
def delete_dataset(
    caller: TheCaller, session: TheSession, dataset_id: str, _query: Annotated[NoQuery, Query()]
) -> Response:
    """Deletes the prompts; refused while a job that has not ended names the dataset."""
    service.remove(session, caller.project_id, dataset_id)
    return Response(status_code=204)
