"""What the endpoints of API keys do: one transaction each, the caller's.

Nobody gives a key more than they have themselves: neither by issuing one, nor by rotating a stronger one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from api import idempotency
from api.administration import project_meant
from api.api_keys.schemas import APIKeyBody, APIKeysQuery, NewAPIKey, RotateQuery, body_of, body_to_keep
from api.idempotency import Answer
from api.pagination import List
from jobs import api_keys
from jobs.api_keys import Caller, IssuedKey
from jobs.scopes import require
from jobs.spec import checked
from jobs.tables import Document


def create(session: Session, caller: Caller, wanted: str | None, key: str | None, document: Any) -> Answer:
    """Issues a key, or returns the answer to the same request before, without the key.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
        InsufficientScope: the caller lacks a scope that the new key would have.
    """
    new = checked(NewAPIKey, document)
    require(caller.scopes, *new.scopes)
    project_id = project_meant(session, caller, wanted)
    return _once(
        session,
        caller,
        key,
        ["POST /v1/api-keys", project_id, document],
        lambda: api_keys.issue(session, project_id, new.name, new.scopes, new.expires_at),
    )


def rotate(session: Session, caller: Caller, key_id: str, key: str | None, query: RotateQuery) -> Answer:
    """Issues a key in place of another, or returns the answer to the same request before, without the key.

    Raises:
        InsufficientScope: the caller lacks a scope that the key has.
        InvalidState: the key was revoked or has expired.
    """
    project_id = project_meant(session, caller, query.project_id)
    row = api_keys.get(session, project_id, key_id, lock=True)
    require(caller.scopes, *row.scopes)
    return _once(
        session,
        caller,
        key,
        [f"POST /v1/api-keys/{key_id}/rotate", query.model_dump()],
        lambda: api_keys.rotate(session, row, overlap=timedelta(seconds=query.overlap_seconds)),
    )


def show(session: Session, caller: Caller, wanted: str | None, key_id: str) -> APIKeyBody:
    """Returns one key."""
    return body_of(api_keys.get(session, project_meant(session, caller, wanted), key_id))


def page(session: Session, caller: Caller, query: APIKeysQuery) -> List[APIKeyBody]:
    """Returns a page of keys, newest first."""
    project_id = project_meant(session, caller, query.project_id)
    found = api_keys.page(session, project_id, limit=query.limit, cursor=query.cursor)
    data = [body_of(row) for row in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def revoke(session: Session, caller: Caller, wanted: str | None, key_id: str) -> None:
    """Makes a key invalid from now on."""
    project_id = project_meant(session, caller, wanted)
    api_keys.revoke(session, api_keys.get(session, project_id, key_id, lock=True))


def _once(session: Session, caller: Caller, key: str | None, request: Any, issue: Callable[[], IssuedKey]) -> Answer:
    shown: dict[str, str] = {}

    def effect() -> Document:
        issued = issue()
        shown["key"] = issued.key
        return body_to_keep(issued).model_dump(mode="json")

    answer = idempotency.once(session, caller.project_id, key, request, 201, effect)
    return Answer({**answer.body, **shown}, answer.replayed)
