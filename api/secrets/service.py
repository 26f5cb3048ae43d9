"""What the endpoints of secrets do: one transaction each, the caller's. No answer and no error holds a value."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from api import idempotency
from api.idempotency import Answer
from api.pagination import List, ListQuery
from api.secrets.schemas import NewSecret, NewValue, SecretBody, body_of
from jobs import secrets
from jobs.sealing import Sealer
from jobs.spec import checked
from jobs.tables import Document


def create(session: Session, sealer: Sealer, project_id: str, key: str | None, document: Any) -> Answer:
    """Stores a secret, or returns the answer to the same request before.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
        AlreadyExists: the project has a secret of that name.
    """
    new = checked(NewSecret, document)
    value = new.value.get_secret_value()

    def effect() -> Document:
        return body_of(secrets.create(session, sealer, project_id, new.name, value)).model_dump(mode="json")

    request = ["POST /v1/secrets", new.name, sealer.digest(value)]
    return idempotency.once(session, project_id, key, request, 201, effect)


def show(session: Session, project_id: str, secret_id: str) -> SecretBody:
    """Returns one secret, without its value."""
    return body_of(secrets.get(session, project_id, secret_id))


def page(session: Session, project_id: str, query: ListQuery) -> List[SecretBody]:
    """Returns a page of secrets, newest first."""
    found = secrets.page(session, project_id, limit=query.limit, cursor=query.cursor)
    data = [body_of(secret) for secret in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def replace(session: Session, sealer: Sealer, project_id: str, secret_id: str, document: Any) -> SecretBody:
    """Gives a secret another value.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
    """
    value = checked(NewValue, document).value.get_secret_value()
    return body_of(secrets.replace(session, sealer, project_id, secret_id, value))


def remove(session: Session, project_id: str, secret_id: str) -> None:
    """Deletes a secret at once."""
    secrets.remove(session, project_id, secret_id)
