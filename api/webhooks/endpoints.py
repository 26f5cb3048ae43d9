"""/v1/webhook-endpoints: POST, GET; one: GET, PATCH, DELETE, POST …/rotate-secret, …/test; its deliveries."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from api.dependencies import IdempotencyKeyHeader, RawBody, TheCaller, TheServices, TheSession, parse_json
from api.openapi import REPLAYED_HEADER, json_request_body, problems
from api.pagination import List, ListQuery, NoQuery
from api.webhooks import service
from api.webhooks.schemas import (
    DeliveriesQuery,
    IssuedWebhookEndpointBody,
    NewWebhookEndpoint,
    RotateSecretQuery,
    WebhookDeliveryBody,
    WebhookEndpointBody,
    WebhookEndpointChanges,
)

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"])


@router.post(
    "",
    operation_id="createWebhookEndpoint",
    status_code=201,
    response_model=IssuedWebhookEndpointBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(400, 401, 408, 409, 413, 415, 422)},
    openapi_extra=json_request_body(NewWebhookEndpoint),
)
def create_webhook_endpoint(
    caller: TheCaller,
    services: TheServices,
    body: RawBody,
    session: TheSession,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Tells a URL what happens from now on, signed with a secret that is shown this once."""
    document = parse_json(body)
    answer = service.create(session, services.sealer, services.outbound, caller.project_id, idempotency_key, document)
    headers = {**answer.headers, "Location": f"/v1/webhook-endpoints/{answer.body['id']}"}
    return JSONResponse(answer.body, 201, headers)


@router.get("", operation_id="listWebhookEndpoints", responses=problems(401, 422))
def list_webhook_endpoints(
    caller: TheCaller, session: TheSession, query: Annotated[ListQuery, Query()]
) -> List[WebhookEndpointBody]:
    """Webhook endpoints of the project, newest first."""
    return service.page(session, caller.project_id, query)


@router.get("/{endpoint_id}", operation_id="getWebhookEndpoint", responses=problems(401, 404, 422))
def get_webhook_endpoint(
    caller: TheCaller, session: TheSession, endpoint_id: str, _query: Annotated[NoQuery, Query()]
) -> WebhookEndpointBody:
    """One webhook endpoint: whether it is enabled, and since when it fails."""
    return service.show(session, caller.project_id, endpoint_id)


@router.patch(
    "/{endpoint_id}",
    operation_id="changeWebhookEndpoint",
    responses=problems(400, 401, 404, 408, 413, 415, 422),
    openapi_extra=json_request_body(WebhookEndpointChanges),
)
def change_webhook_endpoint(
    caller: TheCaller,
    services: TheServices,
    endpoint_id: str,
    body: RawBody,
    session: TheSession,
    _query: Annotated[NoQuery, Query()],
) -> WebhookEndpointBody:
    """Changes a webhook endpoint; `enabled` disables it, and enables one that was disabled for failing."""
    return service.change(session, services.outbound, caller.project_id, endpoint_id, parse_json(body))


@router.delete(
    "/{endpoint_id}", operation_id="deleteWebhookEndpoint", status_code=204, responses=problems(401, 404, 422)
)
def delete_webhook_endpoint(
    caller: TheCaller, session: TheSession, endpoint_id: str, _query: Annotated[NoQuery, Query()]
) -> Response:
    """Deletes a webhook endpoint and its deliveries."""
    service.remove(session, caller.project_id, endpoint_id)
    return Response(status_code=204)


@router.post(
    "/{endpoint_id}/rotate-secret",
    operation_id="rotateWebhookSecret",
    status_code=201,
    response_model=IssuedWebhookEndpointBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def rotate_webhook_secret(
    caller: TheCaller,
    services: TheServices,
    session: TheSession,
    endpoint_id: str,
    query: Annotated[RotateSecretQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Signs with a new secret, shown this once, and for a while with the old one as well."""
    answer = service.rotate_secret(session, services.sealer, caller.project_id, endpoint_id, idempotency_key, query)
    return JSONResponse(answer.body, 201, answer.headers)


@router.post(
    "/{endpoint_id}/test",
    operation_id="testWebhookEndpoint",
    status_code=201,
    response_model=WebhookDeliveryBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def ping_webhook_endpoint(
    caller: TheCaller,
    session: TheSession,
    endpoint_id: str,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Sends a `webhook.ping`; the delivery shows what became of it."""
    answer = service.test(session, caller.project_id, endpoint_id, idempotency_key)
    return JSONResponse(answer.body, 201, answer.headers)


@router.get("/{endpoint_id}/deliveries", operation_id="listWebhookDeliveries", responses=problems(401, 404, 422))
def list_webhook_deliveries(
    caller: TheCaller, session: TheSession, endpoint_id: str, query: Annotated[DeliveriesQuery, Query()]
) -> List[WebhookDeliveryBody]:
    """Messages to a webhook endpoint, newest first, and what became of them."""
    return service.deliveries_page(session, caller.project_id, endpoint_id, query)


@router.get(
    "/{endpoint_id}/deliveries/{delivery_id}", operation_id="getWebhookDelivery", responses=problems(401, 404, 422)
)
def get_webhook_delivery(
    caller: TheCaller,
    session: TheSession,
    endpoint_id: str,
    delivery_id: str,
    _query: Annotated[NoQuery, Query()],
) -> WebhookDeliveryBody:
    """One message to a webhook endpoint."""
    return service.delivery(session, caller.project_id, endpoint_id, delivery_id)


@router.post(
    "/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    operation_id="redeliverWebhook",
    status_code=201,
    response_model=WebhookDeliveryBody,
    responses={201: {"headers": REPLAYED_HEADER}, **problems(401, 404, 409, 422)},
)
def redeliver_webhook(
    caller: TheCaller,
    session: TheSession,
    endpoint_id: str,
    delivery_id: str,
    _query: Annotated[NoQuery, Query()],
    idempotency_key: IdempotencyKeyHeader = None,
) -> JSONResponse:
    """Sends a message again, with the same `webhook-id`, whatever became of it."""
    answer = service.send_again(session, caller.project_id, endpoint_id, delivery_id, idempotency_key)
    return JSONResponse(answer.body, 201, answer.headers)
