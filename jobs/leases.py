"""Who runs a job: claim, renewal, the guard of every write, the end of an attempt, and recovery of what was lost.

A lease is a row's `lease_owner`, `lease_expires_at` and `epoch`. A claim raises the epoch, and everything that a worker
writes is checked against it under the row's lock, so that a worker that was thought dead and is not can write nothing.
All times are the database's; no clock of a worker is compared with another's. One transaction each, the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from jobs import lifecycle
from jobs.errors import LeaseLost
from jobs.ids import new_id
from jobs.states import HELD, Desired, Status, StatusReason
from jobs.tables import Attempt, Checkpoint, Document, Job

MAX_ATTEMPTS_WITHOUT_PROGRESS = 3
_LONGEST_BACKOFF = timedelta(minutes=5)
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
    spec: Document = field(repr=False)
    spec_digest: str


@dataclass(frozen=True)
class Retry:
    """How soon a job is tried again: `first`, doubled for each attempt that committed no new checkpoint."""

    first: timedelta

    def after(self, attempts_without_progress: int) -> timedelta:
        """Returns the pause before the next attempt, at most five minutes."""
        doublings = min(max(attempts_without_progress - 1, 0), 16)
        return min(self.first * (1 << doublings), _LONGEST_BACKOFF)


def claim(session: Session, owner: str, lease: timedelta) -> Claim | None:
    """Gives the next eligible job to a worker, or returns None.

    Eligible is a queued job whose back-off is over. The project that runs the fewest jobs comes first, then the oldest
    job. Rows that another worker is claiming are skipped, not waited for.

    Args:
        session: An open transaction.
        owner: The worker's name.
        lease: How long the job is the worker's without a renewal; it runs from now, heartbeat or not.
    """
    job = session.scalar(_next_eligible())
    if job is None:
        return None
    job.epoch += 1
    job.attempt += 1
    job.lease_owner = owner
    job.lease_expires_at = _from_now(lease)
    job.first_heartbeat_at = job.not_before = None
    lifecycle.transition(session, job, Status.RUNNING, phase="loading_model" if job.attempt == 1 else "recovering")
    attempt = Attempt(id=new_id("att"), job_id=job.id, number=job.attempt, epoch=job.epoch, worker=owner)
    session.add(attempt)
    session.flush()
    return Claim(job.id, job.project_id, attempt.id, job.attempt, job.epoch, job.spec, job.spec_digest)


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
    statement = select(Job).where(Job.id == job_id, *_held(epoch)).with_for_update()
    job = session.scalar(statement, execution_options={"populate_existing": True})
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
    """Ends the attempt of a locked job: the job takes `status` and loses its lease.

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
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.epoch == job.epoch)
        .values(**outcome, last_step=last_step, finished_at=func.clock_timestamp())
    )
    lifecycle.transition(session, job, status, phase=phase, reason=reason)


def end_preempted(session: Session, job: Job, reason: StatusReason, *, exit_code: int | None = None) -> None:
    """Ends the attempt of a locked job whose worker shuts down: back to the queue at once, and not held against it."""
    if _progressed(session, job):
        job.attempts_without_progress = 0
    end(session, job, Status.QUEUED, reason, phase="waiting_capacity", exit_code=exit_code)


def end_for_retry(
    session: Session, job: Job, reason: StatusReason, retry: Retry, *, exit_code: int | None = None
) -> Status:
    """Ends the attempt of a locked job so that another can follow, or fails the job if that is hopeless.

    Hopeless is the third attempt in a row that committed no new checkpoint. Attempts that did are not counted, however
    many there are: such a job comes to its end.

    Returns:
        What the job became: queued, failed, or what its owner had asked for.
    """
    if job.status in _ASKED_FOR:
        status, asked = _ASKED_FOR[Status(job.status)]
        phase = "done" if status is Status.CANCELLED else job.phase
        end(session, job, status, asked, phase=phase, exit_code=exit_code)
        return status
    job.attempts_without_progress = 0 if _progressed(session, job) else job.attempts_without_progress + 1
    if job.attempts_without_progress >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
        end(session, job, Status.FAILED, reason, phase="done", exit_code=exit_code)
        return Status.FAILED
    job.not_before = _from_now(retry.after(job.attempts_without_progress))
    end(session, job, Status.QUEUED, reason, phase="recovering", exit_code=exit_code)
    return Status.QUEUED


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
    return [(job.id, end_for_retry(session, job, _worker_lost(job), retry)) for job in session.scalars(statement)]


def _next_eligible() -> Select[Job]:
    other = aliased(Job)
    running = (
        select(func.count())
        .where(other.project_id == Job.project_id, other.status.in_(HELD))
        .correlate(Job)
        .scalar_subquery()
    )
    due = Job.not_before.is_(None) | (Job.not_before <= func.clock_timestamp())
    return (
        select(Job)
        .where(Job.status == Status.QUEUED.value, due)
        .order_by(running, Job.id)
        .limit(1)
        .with_for_update(of=Job, skip_locked=True)
    )


def _held(epoch: int) -> tuple[ColumnElement[bool], ...]:
    return Job.epoch == epoch, Job.status.in_(HELD), Job.lease_expires_at > func.clock_timestamp()


def _from_now(duration: timedelta) -> ColumnElement[datetime]:
    return func.clock_timestamp() + duration


def _progressed(session: Session, job: Job) -> bool:
    committed = exists().where(Checkpoint.job_id == job.id, Checkpoint.epoch == job.epoch, Checkpoint.kind == "state")
    return bool(session.scalar(select(committed)))


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
# A job whose owner asked for an end that its worker did not live to bring about gets that end, not another attempt.
_ASKED_FOR: dict[Status, tuple[Status, StatusReason]] = {
    Status.CANCELLING: (Status.CANCELLED, CANCELLED_BY_USER),
    Status.PAUSING: (Status.PAUSED, PAUSED_BY_USER),
}
