"""What a project uses of its limits, and the limit that is checked when something is asked for: storage.

Jobs at once and GPU hours are checked where a job is claimed (`jobs.queue`): a job above them waits.

Storage is what rows say of files in the object store, and of datasets. It is measured at most once a minute and only
when somebody asks, so a limit is exceeded by what is uploaded in that minute; jobs that run are not stopped for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import QuotaExceeded
from jobs.tables import Project, StorageUse

_FRESH = text("interval '60 seconds'")
_MEASURING = 0x6567_7270  # "egrp": the first half of the advisory lock of whoever writes down what was measured.

_STORED = text("""
    SELECT coalesce(sum(size_bytes), 0)::bigint FROM (
        SELECT c.size_bytes FROM checkpoints c JOIN jobs j ON j.id = c.job_id
        WHERE j.project_id = :project_id AND c.deleted_at IS NULL
        UNION ALL
        SELECT s.size_bytes FROM samples s JOIN jobs j ON j.id = s.job_id WHERE j.project_id = :project_id
        UNION ALL
        SELECT a.size_bytes FROM artifacts a JOIN jobs j ON j.id = a.job_id WHERE j.project_id = :project_id
        UNION ALL
        SELECT size_bytes FROM datasets WHERE project_id = :project_id AND deleted_at IS NULL
    ) stored
""")
_ALLOWED_STORAGE = select(Project.max_storage_bytes).where(Project.id == bindparam("project_id"))
_MONTH = "date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"
_RUNNING = text(f"""
    SELECT count(*), coalesce(sum(
        a.num_gpus * extract(epoch FROM clock_timestamp() - greatest(a.started_at, {_MONTH}))
    ), 0)::double precision + coalesce((
        SELECT sum(gpu_seconds) FROM gpu_time WHERE project_id = :project_id AND day >= {_MONTH}
    ), 0)
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.epoch = j.epoch
    WHERE j.project_id = :project_id AND j.lease_owner IS NOT NULL
""")


@dataclass(frozen=True)
class Use:
    """What a project uses now: GPU time is that of the calendar month, UTC, running attempts included."""

    running_jobs: int
    gpu_hours: float
    storage_bytes: int


def use_of(session: Session, project_id: str) -> Use:
    """Returns what a project uses."""
    running, gpu_seconds = session.execute(_RUNNING, {"project_id": project_id}).one()
    return Use(running, gpu_seconds / 3600, stored_bytes(session, project_id))


def check_storage(session: Session, project_id: str, more_bytes: int = 0) -> None:
    """Passes if the project may store more.

    Args:
        session: An open transaction.
        project_id: The project.
        more_bytes: What is about to be stored, as far as that is known.

    Raises:
        QuotaExceeded: its storage is used up, or would be.
    """
    allowed = session.scalar(_ALLOWED_STORAGE, {"project_id": project_id})
    if allowed is None:
        return
    used = stored_bytes(session, project_id)
    if used >= allowed or used + more_bytes > allowed:
        raise QuotaExceeded("the project's storage is used up", limit="max_storage_bytes", allowed=allowed, used=used)


def stored_bytes(session: Session, project_id: str) -> int:
    """Returns how many bytes a project stores, as measured in the last minute."""
    measured = select(StorageUse.size_bytes).where(
        StorageUse.project_id == project_id, StorageUse.measured_at > func.clock_timestamp() - _FRESH
    )
    known = session.scalar(measured)
    if known is not None:
        return known
    size_bytes = session.scalars(_STORED, {"project_id": project_id}).one()
    # Nobody waits for another request to write it down.
    if session.scalar(select(func.pg_try_advisory_xact_lock(_MEASURING, func.hashtext(project_id)))):
        values = {"size_bytes": size_bytes, "measured_at": func.clock_timestamp()}
        statement = insert(StorageUse).values(project_id=project_id, **values)
        session.execute(statement.on_conflict_do_update(index_elements=[StorageUse.project_id], set_=values))
    return int(size_bytes)
