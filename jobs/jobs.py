"""The jobs of a project: create, read, list, cancel, pause, resume. Every query is scoped to the project.

Another project's job is not found, as if it did not exist.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, undefer

from jobs import events, lifecycle
from jobs.errors import NotFound
from jobs.ids import is_id, new_id
from jobs.leases import CANCELLED_BY_USER, PAUSED_BY_USER
from jobs.pages import Page, cut, decode_cursor
from jobs.spec import JobSpec, document_of
from jobs.states import Action, Desired, Status, check_action
from jobs.tables import Job


def create(session: Session, project_id: str, spec: JobSpec) -> Job:
    """Queues a new job and returns it; its first event says so."""
    job = Job(
        id=new_id("job"),
        project_id=project_id,
        name=spec.name,
        metadata_=spec.metadata,
        spec=document_of(spec),
        spec_digest=spec.train_spec().digest(),
        base_model=spec.base_model_label(),
        phase="waiting_capacity",
        progress={"step": 0, "total_steps": spec.training.steps, "steps_per_second": None, "eta_seconds": None},
    )
    session.add(job)
    session.flush()
    session.refresh(job)  # What the database filled in.
    data = {"status": job.status, "phase": job.phase, "status_reason": None, "attempt": 0}
    events.append(session, job.id, "status", data)
    return job


def get(session: Session, project_id: str, job_id: str, *, with_spec: bool = False, lock: bool = False) -> Job:
    """Returns a job of the project.

    Raises:
        NotFound: the project has no such job.
    """
    statement = _of(project_id).where(Job.id == job_id)
    if with_spec:
        statement = statement.options(undefer(Job.spec))
    if lock:
        statement = statement.with_for_update()
    job = session.scalar(statement) if is_id(job_id, "job") else None
    if job is None:
        raise NotFound(f"there is no job {job_id!r}")
    return job


def page(
    session: Session,
    project_id: str,
    *,
    limit: int,
    cursor: str | None = None,
    statuses: Collection[str] = (),
    name: str | None = None,
) -> Page[Job]:
    """Returns jobs of the project, newest first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = _of(project_id).order_by(Job.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Job.id < decode_cursor(cursor))
    if statuses:
        statement = statement.where(Job.status.in_(statuses))
    if name is not None:
        statement = statement.where(Job.name == name)
    return cut(list(session.scalars(statement)), limit, lambda job: job.id)


def cancel(session: Session, project_id: str, job_id: str, *, deadline: timedelta) -> Job:
    """Cancels a job that nobody runs at once, or asks its worker to, with a deadline for the reaper.

    Raises:
        NotFound: the project has no such job.
        InvalidState: the job has ended, or is being cancelled already.
    """
    job = get(session, project_id, job_id, lock=True, with_spec=True)
    check_action(job.status, Action.CANCEL)
    if job.status in (Status.QUEUED, Status.PAUSED):
        lifecycle.transition(session, job, Status.CANCELLED, phase="done", reason=CANCELLED_BY_USER)
    else:
        job.desired_state = Desired.CANCEL.value
        job.deadline_at = func.clock_timestamp() + deadline
        lifecycle.transition(session, job, Status.CANCELLING, phase=job.phase, reason=CANCELLED_BY_USER)
    session.refresh(job)
    return job


def pause(session: Session, project_id: str, job_id: str, *, deadline: timedelta) -> Job:
    """Pauses a job that nobody runs at once, or asks its worker to commit and let go, with a deadline for the reaper.

    Raises:
        NotFound: the project has no such job.
        InvalidState: the job has ended, is paused, or is on its way there.
    """
    job = get(session, project_id, job_id, lock=True, with_spec=True)
    check_action(job.status, Action.PAUSE)
    if job.status == Status.QUEUED:
        lifecycle.transition(session, job, Status.PAUSED, phase=job.phase, reason=PAUSED_BY_USER)
    else:
        job.desired_state = Desired.PAUSE.value
        job.deadline_at = func.clock_timestamp() + deadline
        lifecycle.transition(session, job, Status.PAUSING, phase=job.phase, reason=PAUSED_BY_USER)
    session.refresh(job)
    return job


def resume(session: Session, project_id: str, job_id: str) -> Job:
    """Puts a paused job back into the queue, at its old place; it goes on from its last checkpoint, on any worker.

    Raises:
        NotFound: the project has no such job.
        InvalidState: the job is not paused.
    """
    job = get(session, project_id, job_id, lock=True, with_spec=True)
    check_action(job.status, Action.RESUME)
    job.not_before = None  # Its owner asks for it now, whatever it waited for before.
    job.attempts_without_progress = 0
    lifecycle.transition(session, job, Status.QUEUED, phase="waiting_capacity")
    session.refresh(job)
    return job


def queue_positions(session: Session, jobs: Sequence[Job]) -> Mapping[str, int]:
    """Returns, for the queued ones of the given jobs, the place in the queue of the whole service, from 1."""
    ids = [job.id for job in jobs if job.status == Status.QUEUED]
    if not ids:
        return {}
    place = func.row_number().over(order_by=Job.id).label("place")
    queue = select(Job.id, place).where(Job.status == Status.QUEUED.value).subquery()
    rows = session.execute(select(queue.c.id, queue.c.place).where(queue.c.id.in_(ids)))
    return {row.id: row.place for row in rows}


def _of(project_id: str) -> Select[Job]:
    return select(Job).where(Job.project_id == project_id)
