"""What the endpoints of webhooks do: one transaction each, the caller's. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from api import idempotency
from api.idempotency import Answer
from api.pagination import List, ListQuery
from api.webhooks.schemas import (
    DeliveriesQuery,
    IssuedWebhookEndpointBody,
    NewWebhookEndpoint,
    RotateSecretQuery,
    WebhookDeliveryBody,
    WebhookEndpointBody,
    WebhookEndpointChanges,
    body_of,
    delivery_body_of,
)
from jobs import deliveries, webhooks
from jobs.errors import FieldError, InvalidRequest
from jobs.outbound import Outbound, OutboundRefused
from jobs.sealing import Sealer
from jobs.spec import checked
from jobs.tables import Document, WebhookDelivery, WebhookEndpoint


def create(
    session: Session, sealer: Sealer, outbound: Outbound, project_id: str, key: str | None, document: Any
) -> Answer:
    """Stores an endpoint, or returns the answer to the same request before, without the secret.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
    """
    new = checked(NewWebhookEndpoint, document)
    _check_url(outbound, new.url)
    return _once_with_secret(
        session,
        project_id,
        key,
        ["POST /v1/webhook-endpoints", document],
        lambda: webhooks.create(
            session, sealer, project_id, url=new.url, events=new.events, description=new.description
        ),
    )


def rotate_secret(
    session: Session, sealer: Sealer, project_id: str, endpoint_id: str, key: str | None, query: RotateSecretQuery
) -> Answer:
    """Gives an endpoint a new secret, or returns the answer to the same request before, without the secret."""
    overlap = timedelta(seconds=query.overlap_seconds)
    return _once_with_secret(
        session,
        project_id,
        key,
        [f"POST /v1/webhook-endpoints/{endpoint_id}/rotate-secret", query.overlap_seconds],
        lambda: webhooks.rotate_secret(session, sealer, project_id, endpoint_id, overlap=overlap),
    )


def change(
    session: Session, outbound: Outbound, project_id: str, endpoint_id: str, document: Any
) -> WebhookEndpointBody:
    """Changes an endpoint.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
    """
    changes = checked(WebhookEndpointChanges, document).model_dump(exclude_unset=True)
    if "url" in changes:
        _check_url(outbound, changes["url"])
    return body_of(webhooks.change(session, project_id, endpoint_id, **changes))


def show(session: Session, project_id: str, endpoint_id: str) -> WebhookEndpointBody:
    """Returns one endpoint."""
    return body_of(webhooks.get(session, project_id, endpoint_id))


def page(session: Session, project_id: str, query: ListQuery) -> List[WebhookEndpointBody]:
    """Returns a page of endpoints, newest first."""
    found = webhooks.page(session, project_id, limit=query.limit, cursor=query.cursor)
    data = [body_of(endpoint) for endpoint in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def remove(session: Session, project_id: str, endpoint_id: str) -> None:
    """Deletes an endpoint with its messages."""
    webhooks.remove(session, project_id, endpoint_id)


def test(session: Session, project_id: str, endpoint_id: str, key: str | None) -> Answer:
    """Sends an endpoint a `webhook.ping`, or returns the answer to the same request before."""
    return _once(
        session,
        project_id,
        key,
        f"POST /v1/webhook-endpoints/{endpoint_id}/test",
        lambda: deliveries.ping(session, webhooks.get(session, project_id, endpoint_id)),
    )


def send_again(session: Session, project_id: str, endpoint_id: str, delivery_id: str, key: str | None) -> Answer:
    """Sends a message again, or returns the answer to the same request before."""
    return _once(
        session,
        project_id,
        key,
        f"POST /v1/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
        lambda: deliveries.send_again(session, webhooks.get(session, project_id, endpoint_id), delivery_id),
    )


def delivery(session: Session, project_id: str, endpoint_id: str, delivery_id: str) -> WebhookDeliveryBody:
    """Returns one message."""
    return delivery_body_of(deliveries.get(session, webhooks.get(session, project_id, endpoint_id), delivery_id))


def deliveries_page(
    session: Session, project_id: str, endpoint_id: str, query: DeliveriesQuery
) -> List[WebhookDeliveryBody]:
    """Returns a page of messages to an endpoint, newest first."""
    endpoint = webhooks.get(session, project_id, endpoint_id)
    found = deliveries.page(
        session, endpoint, limit=query.limit, cursor=query.cursor, statuses=query.status, type=query.type
    )
    data = [delivery_body_of(each) for each in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def _check_url(outbound: Outbound, url: str) -> None:
    try:
        outbound.check(url)
    except OutboundRefused as error:
        raise InvalidRequest([FieldError("url_not_allowed", str(error), pointer="/url")]) from None


def _once(
    session: Session, project_id: str, key: str | None, request: Any, effect: Callable[[], WebhookDelivery]
) -> Answer:
    return idempotency.once(
        session, project_id, key, request, 201, lambda: delivery_body_of(effect()).model_dump(mode="json")
    )


def _once_with_secret(
    session: Session, project_id: str, key: str | None, request: Any, effect: Callable[[], tuple[WebhookEndpoint, str]]
) -> Answer:
    shown: dict[str, str] = {}

    def kept() -> Document:
        endpoint, shown["secret"] = effect()
        return IssuedWebhookEndpointBody(**body_of(endpoint).model_dump(), secret=None).model_dump(mode="json")

    answer = idempotency.once(session, project_id, key, request, 201, kept)
    return Answer({**answer.body, **shown}, answer.replayed)
