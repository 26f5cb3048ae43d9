"""The prompt sets of a project. Every query is scoped to the project; the prompts of a set never change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from jobs import prompt_references, quotas
from jobs.errors import InUse, NotFound
from jobs.ids import is_id, new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.prompt_references import DatasetPrompts
from jobs.states import TERMINAL
from jobs.tables import Dataset, DatasetSplit, Document, Job, JobDataset


def create(
    session: Session, project_id: str, name: str, splits: Mapping[str, Sequence[str]], metadata: Mapping[str, str]
) -> Dataset:
    """Stores a prompt set and returns it. The splits have been checked.

    Raises:
        QuotaExceeded: it is more than the project may still store.
    """
    size_bytes = sum(len(prompt.encode()) for prompts in splits.values() for prompt in prompts)
    quotas.check_storage(session, project_id, size_bytes)
    text = json.dumps(splits, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    dataset = Dataset(
        id=new_id("ds"),
        project_id=project_id,
        name=name,
        metadata_=dict(metadata),
        splits={split: len(prompts) for split, prompts in splits.items()},
        size_bytes=size_bytes,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    session.add(dataset)
    session.flush()
    session.add_all(
        DatasetSplit(dataset_id=dataset.id, name=split, prompts=list(prompts)) for split, prompts in splits.items()
    )
    session.flush()
    session.refresh(dataset)
    return dataset


def get(session: Session, project_id: str, dataset_id: str, *, lock: bool = False) -> Dataset:
    """Returns a dataset of the project.

    Raises:
        NotFound: the project has none of that id, or it was deleted.
    """
    statement = _of(project_id).where(Dataset.id == dataset_id)
    if lock:
        statement = statement.with_for_update()
    dataset = session.scalar(statement) if is_id(dataset_id, "ds") else None
    if dataset is None:
        raise NotFound(f"there is no dataset {dataset_id!r}")
    return dataset


def page(
    session: Session, project_id: str, *, limit: int, cursor: str | None = None, name: str | None = None
) -> Page[Dataset]:
    """Returns datasets of the project, newest first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = _of(project_id).order_by(Dataset.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Dataset.id < decode_cursor(cursor))
    if name is not None:
        statement = statement.where(Dataset.name == name)
    return cut(list(session.scalars(statement)), limit, lambda dataset: dataset.id)


def prompts(session: Session, project_id: str, reference: DatasetPrompts) -> list[str]:
    """Returns the prompts of a split, in their order.

    Raises:
        NotFound: the project has no such dataset, or the dataset no such split.
    """
    dataset = get(session, project_id, reference.dataset)
    if reference.split not in dataset.splits:
        known = ", ".join(sorted(dataset.splits))
        raise NotFound(f"dataset {dataset.id} has no split {reference.split!r}; it has {known}")
    statement = select(DatasetSplit.prompts).where(
        DatasetSplit.dataset_id == dataset.id, DatasetSplit.name == reference.split
    )
    return session.scalars(statement).one()


def link(session: Session, project_id: str, job_id: str, references: Sequence[DatasetPrompts]) -> None:
    """Notes which datasets a new job names; from now on they cannot be deleted before it has ended.

    Raises:
        NotFound: one of them was deleted in this moment.
    """
    for dataset_id in sorted({reference.dataset for reference in references}):
        get(session, project_id, dataset_id, lock=True)
        session.add(JobDataset(job_id=job_id, dataset_id=dataset_id))
    session.flush()


def filled_in(session: Session, project_id: str, spec: Document) -> Document:
    """Returns a stored spec with the prompts of its datasets written out, as the trainer wants it.

    Raises:
        NotFound: a dataset was deleted since.
    """
    filled = prompt_references.fill_in(spec, lambda reference: prompts(session, project_id, reference))
    if filled.problems:
        raise NotFound(filled.problems[0].detail)
    document: Document = filled.document
    return document


def remove(session: Session, project_id: str, dataset_id: str) -> None:
    """Deletes the prompts of a dataset; jobs that have ended keep its id and sha256.

    Raises:
        NotFound: the project has no such dataset.
        InUse: a job that has not ended names it.
    """
    dataset = get(session, project_id, dataset_id, lock=True)
    users = (
        select(Job.id)
        .join(JobDataset, JobDataset.job_id == Job.id)
        .where(JobDataset.dataset_id == dataset.id, Job.status.not_in(TERMINAL))
        .order_by(Job.id)
        .limit(11)
    )
    jobs = list(session.scalars(users))
    if jobs:
        named = ", ".join(jobs[:10]) + (", …" if len(jobs) > 10 else "")
        raise InUse(f"dataset {dataset.id} is used by jobs that have not ended: {named}; cancel them first")
    session.execute(delete(DatasetSplit).where(DatasetSplit.dataset_id == dataset.id))
    dataset.deleted_at = func.now()
    session.flush()


def _of(project_id: str) -> Select[Dataset]:
    return select(Dataset).where(Dataset.project_id == project_id, Dataset.deleted_at.is_(None))
