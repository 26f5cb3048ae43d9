"""What the endpoints of datasets do: one transaction each, the caller's."""

from __future__ import annotations

import hashlib

from sqlalchemy.orm import Session

from api import idempotency
from api.datasets import files
from api.datasets.schemas import DatasetBody, DatasetsQuery, NewDataset, PromptsQuery, body_of
from api.dependencies import Upload, parse_json
from api.idempotency import Answer
from api.pagination import List
from jobs import datasets
from jobs.errors import FieldError, InvalidRequest
from jobs.pages import decode_cursor, encode_cursor, invalid_cursor
from jobs.prompt_references import DatasetPrompts
from jobs.spec import checked
from jobs.tables import Document


def create(session: Session, project_id: str, key: str | None, upload: Upload, name: str | None) -> Answer:
    """Stores a dataset, or returns the answer to the same request before.

    Raises:
        InvalidRequest: with everything that is wrong with it.
    """
    new = _new_dataset(upload, name)

    def effect() -> Document:
        dataset = datasets.create(session, project_id, new.name, new.splits, new.metadata)
        return body_of(dataset).model_dump(mode="json")

    request = ["POST /v1/datasets", upload.media_type, name, hashlib.sha256(upload.body).hexdigest()]
    return idempotency.once(session, project_id, key, request, 201, effect)


def _new_dataset(upload: Upload, name: str | None) -> NewDataset:
    if upload.media_type == "application/json":
        if name is not None:
            raise InvalidRequest(
                [FieldError("invalid_parameter", "a JSON body says its name itself", parameter="name")]
            )
        return checked(NewDataset, parse_json(upload.body))
    if name is None:
        raise InvalidRequest([FieldError("missing", "a file needs ?name=", parameter="name")])
    splits = files.splits_of(upload.body, upload.media_type)
    return checked(NewDataset, {"name": name, "splits": splits})


def show(session: Session, project_id: str, dataset_id: str) -> DatasetBody:
    """Returns one dataset."""
    return body_of(datasets.get(session, project_id, dataset_id))


def page(session: Session, project_id: str, query: DatasetsQuery) -> List[DatasetBody]:
    """Returns a page of datasets, newest first."""
    found = datasets.page(session, project_id, limit=query.limit, cursor=query.cursor, name=query.name)
    data = [body_of(dataset) for dataset in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def prompts(session: Session, project_id: str, dataset_id: str, query: PromptsQuery) -> List[str]:
    """Returns a page of the prompts of a split, in their order."""
    dataset = datasets.get(session, project_id, dataset_id)
    found = datasets.prompts(session, project_id, DatasetPrompts(dataset=dataset.id, split=query.split))
    start = 0 if query.cursor is None else _index(decode_cursor(query.cursor))
    end = start + query.limit
    has_more = end < len(found)
    return List(data=found[start:end], has_more=has_more, next_cursor=encode_cursor(str(end)) if has_more else None)


def _index(key: str) -> int:
    if not key.isdecimal() or len(key) > 6:
        raise invalid_cursor()
    return int(key)


def remove(session: Session, project_id: str, dataset_id: str) -> None:
    """Deletes a dataset.

    Raises:
        InUse: a job that has not ended names it.
    """
    datasets.remove(session, project_id, dataset_id)
