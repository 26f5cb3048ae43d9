"""Jobs: create, read, change, cancel, pause, resume, retry. Every query is scoped to the project.

Another project's job is not found, as if it did not exist.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from itertools import product

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, undefer

from jobs import datasets, events, lifecycle, limits, quotas, webhooks
from jobs.errors import NotFound, VersionMismatch
from jobs.ids import is_id, new_id
from jobs.leases import CANCELLED_BY_USER, PAUSED_BY_USER
from jobs.queue import PRIORITIES
from jobs.spec import JobChanges, JobSpec, document_of
from jobs.states import Action, Desired, Status, check_action
from jobs.tables import Job


def create(session: Session, project_id: str, spec: JobSpec) -> Job:
    """Queues a new job and returns it; its first event says so.

    Raises:
        InvalidRequest: its deadline is over already.
        QuotaExceeded: the project's storage is used up.
    """
    limits.check_deadline(session, spec.limits)
    quotas.check_storage(session, project_id)
    job = Job(
        id=new_id("job"),
        project_id=project_id,
        name=spec.name,
        metadata_=spec.metadata,
        spec=document_of(spec),
        spec_digest=spec.train_spec().digest(),
        base_model=spec.base_model_label(),
        priority=PRIORITIES[spec.priority],
        num_gpus=spec.resources.gpus,
        gpu_type=spec.resources.gpu_type,
        max_gpu_hours=spec.limits.max_gpu_hours,
        pause_at=spec.limits.deadline_at,
        phase="waiting_capacity",
        progress={"step": 0, "total_steps": spec.training.steps, "steps_per_second": None, "eta_seconds": None},
    )
    session.add(job)
    session.flush()
    datasets.link(session, project_id, job.id, list(spec.references.values()))
    data = {"status": job.status, "phase": job.phase, "status_reason": None, "attempt": 0}
    events.append(session, job.id, "status", data)
    webhooks.announce(session, project_id, f"job.{job.status}", lifecycle.state_of(job))
    return job


def get(session: Session, project_id: str, job_id: str, *, with_spec: bool = False, lock: bool = False) -> Job:
    """Returns a job of the project.

    Raises:
        NotFound: the project has no such job.
    """
    statement = _ONE[with_spec, lock]
    job = session.scalar(statement, {"project_id": project_id, "job_id": job_id}) if is_id(job_id, "job") else None
    if job is None:
        raise NotFound(f"there is no job {job_id!r}")
    return job


def those_of(session: Session, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], Job]:
    """Returns those of the (project, job) that there are, without their specs."""
    projects, ids = ({pair[part] for pair in wanted} for part in (0, 1))
    found = session.scalars(select(Job).where(Job.id.in_(ids), Job.project_id.in_(projects)))
    return {(job.project_id, job.id): job for job in found if (job.project_id, job.id) in wanted}


def change(session: Session, project_id: str, job_id: str, changes: JobChanges, *, version: int | None) -> Job:
    """Gives a job another name, metadata or limits, whatever its status; its spec stays what was submitted.

    A change that changes nothing makes no version and no event.

    Args:
        session: An open transaction.
        project_id: The caller's.
        job_id: The job.
        changes: Only the fields that were set are changed.
        version: The one that the caller has seen; None takes any.

    Raises:
        InvalidRequest: the new deadline is over already.
        NotFound: the project has no such job.
        VersionMismatch: the job has another version by now.
    """
    job = get(session, project_id, job_id, lock=True, with_spec=True)
    if version not in (None, job.version):
        raise VersionMismatch(f"the job is at version {job.version}, not {version}", version=job.version)
    name = changes.name if "name" in changes.model_fields_set else job.name
    metadata = changes.metadata if "metadata" in changes.model_fields_set else job.metadata_
    allowed = changes.limits if "limits" in changes.model_fields_set else limits.of(job)
    if (name, metadata, allowed) != (job.name, job.metadata_, limits.of(job)):
        if allowed.deadline_at != job.pause_at:
            limits.check_deadline(session, allowed)
        job.name, job.metadata_ = name, metadata
        job.max_gpu_hours, job.pause_at = allowed.max_gpu_hours, allowed.deadline_at
        job.version += 1
        job.updated_at = func.now()
        session.flush()
        session.refresh(job)
        data = {"name": name, "metadata": metadata, "limits": allowed.model_dump(mode="json"), "version": job.version}
        events.append(session, job.id, "changed", data)
    return job


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
        LimitReached: its budget or deadline would pause it again.
        QuotaExceeded: the project's storage is used up.
    """
    return _queue_again(session, project_id, job_id, Action.RESUME)


def retry(session: Session, project_id: str, job_id: str) -> Job:
    """Puts a job that failed or was cancelled back into the queue, at its old place, with all its attempts before it.

    It goes on from its last checkpoint, on any worker; without one it starts again.

    Raises:
        NotFound: the project has no such job.
        InvalidState: the job has not ended, or has succeeded.
        LimitReached: its budget is used up, or its deadline over.
        QuotaExceeded: the project's storage is used up.
    """
    return _queue_again(session, project_id, job_id, Action.RETRY)


def _queue_again(session: Session, project_id: str, job_id: str, action: Action) -> Job:
    job = get(session, project_id, job_id, lock=True, with_spec=True)
    check_action(job.status, action)
    limits.check_not_reached(session, job)
    quotas.check_storage(session, project_id)
    job.not_before = job.avoid_worker = job.avoid_until = None  # Its owner asks now, whatever it waited for before.
    job.attempts_without_progress = 0
    lifecycle.transition(session, job, Status.QUEUED, phase="waiting_capacity")
    session.refresh(job)
    return job


def _one(*, with_spec: bool, lock: bool) -> Select[Job]:
    statement = select(Job).where(Job.project_id == bindparam("project_id"), Job.id == bindparam("job_id"))
    if with_spec:
        statement = statement.options(undefer(Job.spec))
    return statement.with_for_update() if lock else statement


# Built once, which takes longer than asking: by with_spec and lock.
_ONE = {flags: _one(with_spec=flags[0], lock=flags[1]) for flags in product((False, True), repeat=2)}
