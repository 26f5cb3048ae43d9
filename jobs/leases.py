"""Who runs a job: claim, renewal, the guard of every write, the end of an attempt, and recovery of what was lost.

A lease is a row's `lease_owner`, `lease_expires_at` and `epoch`. A claim raises the epoch, and everything that a worker
writes is checked against it under the row's lock, so that a worker that was thought dead and is not can write nothing.
All times are the database's; no clock of a worker is compared with another's. One transaction each, the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import BindParameter, ColumnElement, bindparam, func, select, update
from sqlalchemy.orm import Session

from jobs import gpu_time, lifecycle, limits, queue, workers
from jobs.errors import LeaseLost
from jobs.ids import new_id
from jobs.queue import Pool
from jobs.retries import ELSEWHERE_FOR, MAX_ATTEMPTS_WITHOUT_PROGRESS, Retry, RetryClass, retry_class_of
from jobs.states import HELD, Desired, Status, StatusReason
from jobs.tables import Attempt, Checkpoint, Document, Job

CPU = Pool()
_REAPER_LOCK = 0x6567_7270_6F01  # "egrpo" and a number: the advisory lock of whoever reaps.
_REAPED_AT_ONCE = 50


@dataclass(frozen=True)
class Claim:
    """One job, given to one worker for one attempt."""

    job_id: str
    project_id: str
    attempt_id: str
    attempt: int
    epoch: int
    num_gpus: int
    spec: Document = field(repr=False)
    spec_digest: str


def claim(session: Session, owner: str, lease: timedelta, pool: Pool = CPU) -> Claim | None:
    """Gives the next eligible job to a worker, or returns None. `jobs.queue` says which one that is.

    Args:
        session: An open transaction.
        owner: The worker's name.
        lease: How long the job is the worker's without a renewal; it runs from now, heartbeat or not.
        pool: What GPUs the worker has.
    """
    job = queue.take_next(session, pool, owner)
    if job is None:
        return None
    job.epoch += 1
    job.attempt += 1
    job.lease_owner = owner
    job.lease_expires_at = _from_now(lease)
    job.first_heartbeat_at = job.not_before = job.avoid_worker = job.avoid_until = None
    lifecycle.transition(session, job, Status.RUNNING, phase="loading_model" if job.attempt == 1 else "recovering")
    attempt = Attempt(
        id=new_id("att"),
        job_id=job.id,
        number=job.attempt,
        epoch=job.epoch,
        worker=owner,
        gpu_type=pool.gpu_type,
        num_gpus=job.num_gpus,
    )
    session.add(attempt)
    session.flush()
    return Claim(job.id, job.project_id, attempt.id, job.attempt, job.epoch, job.num_gpus, job.spec, job.spec_digest)


def renew(session: Session, job_id: str, epoch: int, lease: timedelta) -> Desired:
    """Prolongs a lease and returns what the job's owner wants of the trainer.

    Raises:
        LeaseLost: The epoch is over. A lease that ran out is never revived, reaped or not.
    """
    statement = (
        update(Job)
        .where(Job.id == job_id, *_held(epoch))
        .values(
            lease_expires_at=_from_now(lease),
            first_heartbeat_at=func.coalesce(Job.first_heartbeat_at, func.clock_timestamp()),
        )
        .returning(Job.desired_state)
        .execution_options(synchronize_session=False)
    )
    desired = session.scalar(statement)
    if desired is None:
        raise LeaseLost(f"epoch {epoch} of job {job_id} is over")
    return Desired(desired)


def guard(session: Session, job_id: str, epoch: int) -> Job:
    """Returns the job, locked until the transaction ends, if the epoch is still the one that may write.

    Raises:
        LeaseLost: The epoch is over.
    """
    asked = {"job_id": job_id, "held_epoch": epoch}
    job = session.scalar(_GUARDED, asked, execution_options={"populate_existing": True})
    if job is None:
        raise LeaseLost(f"epoch {epoch} of job {job_id} is over")
    return job


def note_resumed(session: Session, claim: Claim, step: int) -> None:
    """Notes from which committed step the attempt goes on."""
    session.execute(update(Attempt).where(Attempt.id == claim.attempt_id).values(resumed_from_step=step))


def end(
    session: Session,
    job: Job,
    status: Status,
    reason: StatusReason | None,
    *,
    phase: str | None,
    exit_code: int | None = None,
) -> None:
    """Ends the attempt of a locked job: the job takes `status`, is charged for the GPU time, and loses its lease.

    Args:
        session: An open transaction.
        job: From `guard`, or locked by the reaper.
        status: What the job becomes.
        reason: Why; None for a success.
        phase: The phase to show from now on.
        exit_code: The trainer's, negative for a signal; None if it is not known.
    """
    outcome = {"outcome": status.value, "reason": dict(reason) if reason else None, "exit_code": exit_code}
    last_step = job.progress.get("step") if job.progress else None
    # A worker that was lost is charged, and shown, until its lease ran out, not until somebody came by to see it.
    finished_at = func.greatest(Attempt.started_at, func.least(func.clock_timestamp(), job.lease_expires_at))
    gpu_type, num_gpus, began, ended = session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.epoch == job.epoch)
        .values(**outcome, last_step=last_step, finished_at=finished_at)
        .returning(Attempt.gpu_type, Attempt.num_gpus, Attempt.started_at, Attempt.finished_at)
    ).one()
    assert ended is not None
    job.gpu_seconds += gpu_time.add(session, job.project_id, gpu_type, num_gpus, began, ended)
    lifecycle.transition(session, job, status, phase=phase, reason=reason)


def end_by_reason(
    session: Session, job: Job, reason: StatusReason, retry: Retry, *, exit_code: int | None = None
) -> Status:
    """Ends the attempt of a locked job that did not succeed: its reason's retry class says what follows.

    The third attempt in a row without a later checkpoint fails the job. Attempts with one are not counted, however many
    there are: such a job comes to its end.

    Returns:
        What the job became: queued, failed, paused by a limit of its own, or what its owner had asked for.
    """
    if job.status in _ASKED_FOR:
        status = _ASKED_FOR[Status(job.status)]
        phase = "done" if status is Status.CANCELLED else job.phase
        # Why it was asked for is what the job says already.
        end(session, job, status, job.status_reason, phase=phase, exit_code=exit_code)  # type: ignore[arg-type]
        return status
    retry_class = retry_class_of(reason)
    if _progressed(session, job):
        job.attempts_without_progress = 0
    elif retry_class is not RetryClass.AT_ONCE:
        job.attempts_without_progress += 1
    if retry_class is RetryClass.NONE or job.attempts_without_progress >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
        end(session, job, Status.FAILED, reason, phase="done", exit_code=exit_code)
        return Status.FAILED
    pause = retry.after(job.attempts_without_progress)
    if retry_class is not RetryClass.AT_ONCE:
        job.not_before = _from_now(pause)
    if retry_class is RetryClass.ELSEWHERE and workers.is_another(session, job):
        job.avoid_worker, job.avoid_until = job.lease_owner, _from_now(pause + ELSEWHERE_FOR)
    phase = "waiting_capacity" if retry_class is RetryClass.AT_ONCE else "recovering"
    end(session, job, Status.QUEUED, reason, phase=phase, exit_code=exit_code)
    limits.pause_if_reached(session, job)
    return Status(job.status)


def reap(session: Session, retry: Retry) -> Sequence[tuple[str, Status]]:
    """Recovers jobs whose lease ran out, and ends those whose pausing or cancelling took too long.

    One reaper works at a time; the others return at once with nothing. Jobs that a worker has locked are left for the
    next round.

    Returns:
        The ids of the jobs and what they became.
    """
    if not session.scalar(select(func.pg_try_advisory_xact_lock(_REAPER_LOCK))):
        return []
    expired = Job.lease_expires_at <= func.clock_timestamp()
    overdue = Job.deadline_at <= func.clock_timestamp()
    statement = (
        select(Job)
        .where(Job.lease_owner.is_not(None), Job.status.in_(HELD), expired | overdue)
        .order_by(Job.lease_expires_at)
        .limit(_REAPED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return [(job.id, end_by_reason(session, job, _worker_lost(job), retry)) for job in session.scalars(statement)]


def _held(epoch: int | BindParameter[int]) -> tuple[ColumnElement[bool], ...]:
    return Job.epoch == epoch, Job.status.in_(HELD), Job.lease_expires_at > func.clock_timestamp()


# Every transaction of a worker begins with it: it is built once, which takes longer than asking.
_GUARDED = select(Job).where(Job.id == bindparam("job_id"), *_held(bindparam("held_epoch"))).with_for_update()


def _from_now(duration: timedelta) -> ColumnElement[datetime]:
    return func.clock_timestamp() + duration


def _progressed(session: Session, job: Job) -> bool:
    """Whether the attempt committed a later checkpoint than all before it; to come as far as they is no progress."""
    states = select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job.id, Checkpoint.kind == "state")
    newest = session.scalar(states.where(Checkpoint.epoch == job.epoch))
    before = session.scalar(states.where(Checkpoint.epoch < job.epoch))
    return newest is not None and (before is None or newest > before)


def _worker_lost(job: Job) -> StatusReason:
    beat = "stopped renewing its lease" if job.first_heartbeat_at else "never sent a heartbeat"
    message = f"worker {job.lease_owner} {beat} in attempt {job.attempt}"
    return {"code": "worker_lost", "message": message, "retryable": True, "actor": "system"}


CANCELLED_BY_USER: StatusReason = {
    "code": "cancelled_by_user",
    "message": "the job was cancelled; its last checkpoint is kept",
    "retryable": False,
    "actor": "user",
}
PAUSED_BY_USER: StatusReason = {
    "code": "paused_by_user",
    "message": "the job was paused; its last checkpoint is kept",
    "retryable": True,
    "actor": "user",
}
# A job whose end was asked for, and whose worker did not live to bring it about, gets that end, not another attempt.
_ASKED_FOR: dict[Status, Status] = {Status.CANCELLING: Status.CANCELLED, Status.PAUSING: Status.PAUSED}
