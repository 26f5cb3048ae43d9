"""What earlier jobs of a project took: the ground for saying what the next one like them will take."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from jobs.spec import JobSpec
from jobs.tables import Job, Metric

# Specs hold up to 10 MB of prompts, and long jobs a row a step: neither is searched to its end.
_NEWEST_JOBS, _FIRST_STEPS = 20, 1000


@dataclass(frozen=True)
class Experience:
    """What the steps of one earlier job took.

    Args:
        job_id: The job.
        num_steps: How many steps the mean is of.
        seconds_per_step: Mean, rollouts included.
        images_per_update: Images that each of its steps learned from.
        peak_memory_bytes: Most memory that its trainer held; None if it never said.
    """

    job_id: str
    num_steps: int
    seconds_per_step: float
    images_per_update: int
    peak_memory_bytes: int | None


def of_jobs_like(session: Session, project_id: str, spec: JobSpec) -> Experience | None:
    """Returns what the project's newest job like this one took, or None where none has made a step.

    Alike is: the same base model, size of images, method, sampling steps, and mode of training.
    """
    newest = (
        select(Job.id, Job.spec)
        .where(Job.project_id == project_id, Job.base_model == spec.base_model_label())
        .order_by(Job.id.desc())
        .limit(_NEWEST_JOBS)
        .subquery()
    )
    wanted = {
        ("method", "type"): spec.method.type,
        ("method", "sampling_steps"): spec.method.sampling_steps,
        ("training", "mode"): spec.training.mode,
        ("height",): spec.height,
        ("width",): spec.width,
    }
    alike = [
        newest.c.spec[path].astext.is_not_distinct_from(None if value is None else str(value))
        for path, value in wanted.items()
    ]
    has_steps = exists().where(Metric.job_id == newest.c.id, Metric.name == "seconds", Metric.step <= _FIRST_STEPS)
    images = newest.c.spec[("training", "images_per_update")].as_integer()
    found = session.execute(
        select(newest.c.id, images.label("images")).where(*alike, has_steps).order_by(newest.c.id.desc()).limit(1)
    ).first()
    return None if found is None else _measured(session, found.id, found.images)


def _measured(session: Session, job_id: str, images: int) -> Experience:
    is_seconds = Metric.name == "seconds"
    row = session.execute(
        select(
            func.count().filter(is_seconds),
            func.avg(Metric.value).filter(is_seconds),
            func.max(Metric.value).filter(Metric.name == "peak_memory_bytes"),
        ).where(Metric.job_id == job_id, Metric.step <= _FIRST_STEPS)
    ).one()
    return Experience(job_id, row[0], row[1], images, None if row[2] is None else int(row[2]))
