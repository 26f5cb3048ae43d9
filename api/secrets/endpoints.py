"""POST and GET /v1/secrets; GET, PUT and DELETE /v1/secrets/{secret_id}."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from api.dependencies import IdempotencyKeyHeader, RawBody, TheCaller, TheServices, TheSession, parse_json
from api.openapi import REPLAYED_HEADER, json_request_body, problems
from api.pagination import List, ListQuery, NoQuery
from api.secrets import service
from api.secrets.schemas import NewSecret, NewValue, SecretBody

router = APIRouter(prefix="/v1/secrets", tags=["secrets"])


@router.post(
    "",
    operation_id="createSecret",
    status_code=201,
    response_model=SecretBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(400, 401, 408, 409, 413, 415, 422)},
    openapi_extra=json_request_body(NewSecret),
)
def create_secret(
    caller: TheCaller,
    services: TheServices,
    body: RawBody,
    session: TheSession,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Keeps a value, encrypted, for jobs to use by its id. It is never shown again."""
    answer = service.create(session, services.sealer, caller.project_id, idempotency_key, parse_json(body))
    return JSONResponse(answer.body, 201, {**answer.headers, "Location": f"/v1/secrets/{answer.body['id']}"})


@router.get("", operation_id="listSecrets", responses=problems(401, 422))
def list_secrets(caller: TheCaller, session: TheSession, query: Annotated[ListQuery, Query()]) -> List[SecretBody]:
    """Secrets of the project without their values, newest first."""
    return service.page(session, caller.project_id, query)


@router.get("/{secret_id}", operation_id="getSecret", responses=problems(401, 404, 422))
def get_secret(
    caller: TheCaller, session: TheSession, secret_id: str, _query: Annotated[NoQuery, Query()]
) -> SecretBody:
    """One secret without its value: when it was replaced and last used."""
    return service.show(session, caller.project_id, secret_id)


@router.put(
    "/{secret_id}",
    operation_id="replaceSecret",
    responses=problems(400, 401, 404, 408, 413, 415, 422),
    openapi_extra=json_request_body(NewValue),
)
def replace_secret(
    caller: TheCaller,
    services: TheServices,
    secret_id: str,
    body: RawBody,
    session: TheSession,
    _query: Annotated[NoQuery, Query()],
) -> SecretBody:
    """Gives a secret another value: attempts of jobs that start from now on get that one."""
    return service.replace(session, services.sealer, caller.project_id, secret_id, parse_json(body))


@router.delete("/{secret_id}", operation_id="deleteSecret", status_code=204, responses=problems(401, 404, 422))
def delete_secret(
    caller: TheCaller, session: TheSession, secret_id: str, _query: Annotated[NoQuery, Query()]
) -> Response:
    """Deletes a secret at once; a job that names it fails at its next attempt, with `secret_missing`."""
    service.remove(session, caller.project_id, secret_id)
    return Response(status_code=204)
