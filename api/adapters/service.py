"""Finding adapters and their files, and deleting them."""

from __future__ import annotations

from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api.adapters.schemas import AdapterBody, AdaptersQuery, body_of
from api.downloads import StoredObject
from api.pagination import List
from jobs import adapters


def page(session: Session, project_id: str, query: AdaptersQuery) -> List[AdapterBody]:
    """Returns a page of adapters, those of the newest jobs first."""
    found = adapters.page(
        session,
        project_id,
        limit=query.limit,
        cursor=query.cursor,
        base_model=query.base_model,
        format=query.format,
        name=query.name,
    )
    data = [body_of(adapter) for adapter in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def show(session: Session, project_id: str, adapter_id: str) -> AdapterBody:
    """Returns one adapter.

    Raises:
        NotFound: the project has no such adapter.
    """
    return body_of(adapters.get(session, project_id, adapter_id))


def file(session: Session, project_id: str, adapter_id: str, path: str) -> StoredObject:
    """Returns where a file of an adapter is.

    Raises:
        NotFound: the project has no such adapter, or the adapter no such file.
    """
    key, entry = adapters.file(session, project_id, adapter_id, path)
    return StoredObject(key, PurePosixPath(path).name, entry["size_bytes"], entry["sha256"])


def delete(session: Session, project_id: str, adapter_id: str) -> None:
    """Deletes an adapter.

    Raises:
        NotFound: the project has no such adapter.
        CheckpointNeeded: it is pinned.
    """
    adapters.delete(session, project_id, adapter_id)
