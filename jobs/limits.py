"""Budgets and deadlines of jobs. One that is used up pauses the job: nothing is lost, and its owner decides.

What the spec says is where a job begins; its columns are what holds, and may be changed. The project's own limits are
those of `jobs.queue`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from jobs import lifecycle
from jobs.errors import FieldError, InvalidRequest, LimitReached
from jobs.spec import Limits
from jobs.states import Desired, Status, StatusReason
from jobs.tables import Attempt, Job

_AT_ONCE = 50


def of(job: Job) -> Limits:
    """Returns the limits that hold for a job."""
    return Limits(max_gpu_hours=job.max_gpu_hours, deadline_at=job.pause_at)


def check_deadline(session: Session, limits: Limits) -> None:
    """Passes if the deadline is still to come.

    Raises:
        InvalidRequest: it is over.
    """
    if limits.deadline_at is None:
        return
    now = session.scalars(select(func.clock_timestamp())).one()
    if limits.deadline_at <= now:
        allowed = f"> {now:%Y-%m-%dT%H:%M:%SZ}"
        detail = "the deadline is over already"
        raise InvalidRequest([FieldError("out_of_range", detail, pointer="/limits/deadline_at", allowed=allowed)])


def check_not_reached(session: Session, job: Job) -> None:
    """Passes if the limits of a locked job let it go on.

    Raises:
        LimitReached: it would be paused again at once.
    """
    reason = _reason(job, session.scalars(select(func.clock_timestamp())).one())
    if reason is not None:
        limit = "max_gpu_hours" if reason["code"] == "budget_exhausted" else "deadline_at"
        raise LimitReached(reason["message"], limit=limit)


def pause_if_reached(session: Session, job: Job) -> None:
    """Pauses a locked job that has just been queued for another attempt, if its limits do not allow one."""
    reason = _reason(job, session.scalars(select(func.clock_timestamp())).one())
    if reason is not None:
        lifecycle.transition(session, job, Status.PAUSED, phase=job.phase, reason=reason)


def enforce(session: Session, grace: timedelta) -> None:
    """Pauses the jobs whose budget or deadline is over. Those that are locked are left for the next round.

    Args:
        session: An open transaction.
        grace: How long a worker has for a last checkpoint before the pause is forced.
    """
    now = func.statement_timestamp()  # An index can be searched by it, as it cannot by a clock that goes on meanwhile.
    # Literals, not parameters: so the planner sees that the partial indexes serve.
    queued = select(Job).where(Job.status == literal_column("'queued'"), Job.pause_at <= now).order_by(Job.pause_at)
    for job in session.scalars(queued.limit(_AT_ONCE).with_for_update(of=Job, skip_locked=True)):
        lifecycle.transition(session, job, Status.PAUSED, phase=job.phase, reason=_deadline_passed(job))
    used = Job.gpu_seconds + Job.num_gpus * func.extract("epoch", now - Attempt.started_at)
    running = (
        select(Job, used, now)
        .join(Attempt, (Attempt.job_id == Job.id) & (Attempt.epoch == Job.epoch))
        .where(Job.lease_owner.is_not(None), Job.status == literal_column("'running'"))
        .where((used >= Job.max_gpu_hours * 3600) | (Job.pause_at <= now))
    )
    for job, seconds, moment in session.execute(running.limit(_AT_ONCE).with_for_update(of=Job, skip_locked=True)):
        reason = _reason(job, moment, float(seconds))
        assert reason is not None, "the statement has chosen it"
        job.desired_state = Desired.PAUSE.value
        job.deadline_at = func.clock_timestamp() + grace
        lifecycle.transition(session, job, Status.PAUSING, phase=job.phase, reason=reason)


def _reason(job: Job, now: datetime, used: float | None = None) -> StatusReason | None:
    """Returns which limit is reached, by a job that has used that many GPU seconds."""
    used = job.gpu_seconds if used is None else used
    if job.max_gpu_hours is not None and used >= job.max_gpu_hours * 3600:
        return _budget_exhausted(job.max_gpu_hours)
    return _deadline_passed(job) if job.pause_at is not None and job.pause_at <= now else None


def _budget_exhausted(max_gpu_hours: float) -> StatusReason:
    used = f"the job has used its {max_gpu_hours:g} GPU hours"
    message = f"{used}: raise limits.max_gpu_hours and resume it, or cancel it"
    return {"code": "budget_exhausted", "message": message, "retryable": False, "actor": "quota"}


def _deadline_passed(job: Job) -> StatusReason:
    when = f"{job.pause_at:%Y-%m-%dT%H:%M:%SZ}"
    message = f"the job had not ended at its deadline, {when}: move limits.deadline_at and resume it, or cancel it"
    return {"code": "deadline_passed", "message": message, "retryable": False, "actor": "quota"}
