"""The results of a project's jobs: of each that succeeded, the adapter that its last attempt exported.

An adapter is a checkpoint of kind `adapter` and has its id. Every query is scoped to the project.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from jobs import checkpoints, jobs
from jobs.errors import CheckpointNeeded, NotFound
from jobs.ids import is_id
from jobs.pages import Page, cut, decode_cursor
from jobs.states import Status
from jobs.tables import Checkpoint, Document, Job

# The file of an exported adapter that shows a format, and what goes with it.
_FORMAT_OF_FILE = {
    "pytorch_lora_weights.safetensors": "diffusers",
    "peft/adapter_model.safetensors": "peft",
    "comfyui_lora.safetensors": "comfyui",
}
_BESIDE = {"peft/adapter_config.json": "peft"}


@dataclass(frozen=True)
class Adapter:
    """An adapter and the job that made it."""

    checkpoint: Checkpoint
    job: Job


def formats_in(paths: Iterable[str]) -> str | None:
    """Returns the formats of an exported adapter by its files, separated by commas; None if there is none."""
    return ",".join(_FORMAT_OF_FILE[path] for path in paths if path in _FORMAT_OF_FILE) or None


def format_of(path: str) -> str | None:
    """Returns the format to which a file of an adapter belongs; None for the card and what is no adapter's."""
    return _FORMAT_OF_FILE.get(path) or _BESIDE.get(path)


def page(
    session: Session,
    project_id: str,
    *,
    limit: int,
    cursor: str | None = None,
    base_model: str | None = None,
    format: str | None = None,
    name: str | None = None,
) -> Page[Adapter]:
    """Returns adapters of the project, those of the newest jobs first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = _of(project_id).order_by(Job.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Job.id < decode_cursor(cursor))
    if base_model is not None:
        statement = statement.where(Job.base_model == base_model)
    if name is not None:
        statement = statement.where(Job.name == name)
    if format is not None:
        # No format's name is in another's. This is a comparison that the planner knows the share of.
        statement = statement.where(Checkpoint.format.contains(format, autoescape=True))
    rows = [Adapter(checkpoint, job) for checkpoint, job in session.execute(statement)]
    return cut(rows, limit, lambda adapter: adapter.job.id)


def get(session: Session, project_id: str, adapter_id: str) -> Adapter:
    """Returns one adapter.

    Raises:
        NotFound: the project has no such adapter.
    """
    statement = _of(project_id).where(Checkpoint.id == adapter_id)
    row = session.execute(statement).one_or_none() if is_id(adapter_id, "ckpt") else None
    if row is None:
        raise NotFound(f"there is no adapter {adapter_id!r}")
    return Adapter(*row)


def file(session: Session, project_id: str, adapter_id: str, path: str) -> tuple[str, Document]:
    """Returns the object key and the manifest entry of one file.

    Raises:
        NotFound: the project has no such adapter, or the adapter no such file.
    """
    return checkpoints.file_of(get(session, project_id, adapter_id).checkpoint, path)


def delete(session: Session, project_id: str, adapter_id: str) -> None:
    """Marks an adapter as deleted: nobody finds it any more, and its files go later. Its job stays as it is.

    Raises:
        NotFound: the project has no such adapter.
        CheckpointNeeded: it is pinned.
    """
    adapter = get(session, project_id, adapter_id)
    jobs.get(session, project_id, adapter.job.id, lock=True)  # Whoever pins holds the same lock.
    session.refresh(adapter.checkpoint)
    if adapter.checkpoint.deleted_at is not None:
        raise NotFound(f"there is no adapter {adapter_id!r}")
    if adapter.checkpoint.pinned_at is not None:
        raise CheckpointNeeded("the adapter is pinned as a checkpoint of its job; unpin it first", needed_for="pin")
    adapter.checkpoint.deleted_at = func.clock_timestamp()
    session.flush()


def _of(project_id: str) -> Select[Checkpoint, Job]:
    """Selects the adapters that the attempts exported with which jobs of the project succeeded."""
    return (
        select(Checkpoint, Job)
        .join(Job, (Job.id == Checkpoint.job_id) & (Job.epoch == Checkpoint.epoch))
        .where(
            Job.project_id == project_id,
            Job.status == Status.SUCCEEDED.value,
            Checkpoint.kind == "adapter",
            Checkpoint.deleted_at.is_(None),
        )
    )
