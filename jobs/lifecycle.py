"""The one place that changes a job's status: checked against the rules, versioned, and told as an event."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs import events, webhooks
from jobs.errors import NotFound
from jobs.states import HELD, TERMINAL, Desired, Status, StatusReason, check_transition
from jobs.tables import Document, Job


def lock(session: Session, job_id: str) -> Job:
    """Returns the job with its row locked and its columns fresh.

    Raises:
        NotFound: there is no such job.
    """
    statement = select(Job).where(Job.id == job_id).with_for_update()
    job = session.scalar(statement, execution_options={"populate_existing": True})
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def transition(
    session: Session, job: Job, status: Status, *, phase: str | None, reason: StatusReason | None = None
) -> None:
    """Moves a locked job to another status and appends the `status` event.

    A job that no worker holds any more loses its lease here; a terminal one gets its end time, and one that is
    tried again has none any more.

    Raises:
        InvalidState: the rules do not allow it.
    """
    check_transition(job.status, status)
    job.status = status.value
    job.status_reason = dict(reason) if reason is not None else None
    if status not in HELD:
        job.lease_owner = job.lease_expires_at = job.first_heartbeat_at = job.deadline_at = None
        job.desired_state = Desired.RUN.value
    job.finished_at = func.now() if status in TERMINAL else None
    if status is Status.RUNNING and job.started_at is None:
        job.started_at = func.now()
    _changed(session, job, phase)
    webhooks.announce(session, job.project_id, f"job.{job.status}", state_of(job))


def state_of(job: Job) -> Document:
    """Returns what is told outside about where a job stands: little, the rest is asked for by its id."""
    return {
        "job_id": job.id,
        "status": job.status,
        "status_reason": job.status_reason,
        "attempt": job.attempt,
        "version": job.version,
    }


def set_phase(session: Session, job: Job, phase: str) -> None:
    """Sets the phase of a locked job and appends a `status` event, unless it is that phase already."""
    if job.phase != phase:
        _changed(session, job, phase)


def set_progress(session: Session, job: Job, progress: Document) -> None:
    """Sets the progress of a locked job: {step, total_steps, steps_per_second, eta_seconds}. No event."""
    job.progress = progress
    job.version += 1
    job.updated_at = func.now()
    session.flush()


def _changed(session: Session, job: Job, phase: str | None) -> None:
    job.phase = phase
    job.version += 1
    job.updated_at = func.now()
    session.flush()
    data = {"status": job.status, "phase": job.phase, "status_reason": job.status_reason, "attempt": job.attempt}
    events.append(session, job.id, "status", data)
