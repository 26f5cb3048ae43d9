"""POST and GET /v1/api-keys, GET and DELETE /v1/api-keys/{key_id}, POST …/rotate."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from api.administration import ProjectQuery
from api.api_keys import service
from api.api_keys.schemas import APIKeyBody, APIKeysQuery, IssuedAPIKeyBody, NewAPIKey, RotateQuery
from api.dependencies import IdempotencyKeyHeader, RawBody, TheCaller, TheSession, parse_json
from api.openapi import REPLAYED_HEADER, json_request_body, problems
from api.pagination import List

router = APIRouter(prefix="/v1/api-keys", tags=["access"])


@router.post(
    "",
    operation_id="createApiKey",
    status_code=201,
    response_model=IssuedAPIKeyBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(400, 401, 404, 408, 409, 413, 415, 422)},
    openapi_extra=json_request_body(NewAPIKey),
)
def create_api_key(
    caller: TheCaller,
    body: RawBody,
    session: TheSession,
    query: Annotated[ProjectQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Issues a key and shows it, this once. It can do no more than the key that asks for it."""
    answer = service.create(session, caller, query.project_id, idempotency_key, parse_json(body))
    headers = {**answer.headers, "Location": f"/v1/api-keys/{answer.body['id']}"}
    return JSONResponse(answer.body, 201, headers)


@router.get("", operation_id="listApiKeys", responses=problems(401, 404, 422))
def list_api_keys(caller: TheCaller, session: TheSession, query: Annotated[APIKeysQuery, Query()]) -> List[APIKeyBody]:
    """Keys of the project, newest first, also those that were revoked or have expired."""
    return service.page(session, caller, query)


@router.get("/{key_id}", operation_id="getApiKey", responses=problems(401, 404, 422))
def get_api_key(
    caller: TheCaller, session: TheSession, key_id: str, query: Annotated[ProjectQuery, Query()]
) -> APIKeyBody:
    """One key: what it may do, when it was last used, when its time ends."""
    return service.show(session, caller, query.project_id, key_id)


@router.delete("/{key_id}", operation_id="revokeApiKey", status_code=204, responses=problems(401, 404, 422))
def revoke_api_key(
    caller: TheCaller, session: TheSession, key_id: str, query: Annotated[ProjectQuery, Query()]
) -> None:
    """Makes a key invalid from now on; the list still shows it."""
    service.revoke(session, caller, query.project_id, key_id)


@router.post(
    "/{key_id}/rotate",
    operation_id="rotateApiKey",
    status_code=201,
    response_model=IssuedAPIKeyBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def rotate_api_key(
    caller: TheCaller,
    session: TheSession,
    key_id: str,
    query: Annotated[RotateQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Issues a key with the same name, scopes and expiry, and shows it, this once; the old one ends."""
    answer = service.rotate(session, caller, key_id, idempotency_key, query)
    headers = {**answer.headers, "Location": f"/v1/api-keys/{answer.body['id']}"}
    return JSONResponse(answer.body, 201, headers)
