"""Metrics of a job, keyed by step and name: a replayed step overwrites, an older epoch cannot.

Writers hold the job by `leases.guard`; readers have found the job in their project.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sqlalchemy import ARRAY, Double, Integer, Text, cast, func, literal, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.pages import Page, cut, decode_cursor, invalid_cursor
from jobs.tables import Metric


def upsert(session: Session, job_id: str, epoch: int, values: Mapping[tuple[int, str], float]) -> None:
    """Writes values by (step, name).

    Raises:
        ValueError: a value is not finite; nothing is written.
    """
    culprits = [f"{name} at step {step}" for (step, name), value in values.items() if not math.isfinite(value)]
    if culprits:
        raise ValueError(f"not finite: {', '.join(culprits)}")
    if not values:
        return
    # One statement of three arrays: a statement a row would cost more than everything else that a step costs.
    steps, names = [step for step, _ in values], [name for _, name in values]
    row = (
        func.unnest(cast(steps, ARRAY(Integer)), cast(names, ARRAY(Text)), cast(list(values.values()), ARRAY(Double)))
        .table_valued("step", "name", "value")
        .render_derived()
    )
    rows = select(literal(job_id), row.c.step, row.c.name, row.c.value, literal(epoch))
    statement = insert(Metric).from_select(["job_id", "step", "name", "value", "epoch"], rows)
    statement = statement.on_conflict_do_update(
        index_elements=[Metric.job_id, Metric.step, Metric.name],
        set_={name: statement.excluded[name] for name in ("value", "epoch", "created_at")},
        where=Metric.epoch <= statement.excluded.epoch,
    )
    session.execute(statement)


def read(
    session: Session,
    job_id: str,
    *,
    names: Sequence[str] = (),
    from_step: int | None = None,
    to_step: int | None = None,
    max_points: int,
    limit: int,
    cursor: str | None = None,
) -> Page[Metric]:
    """Returns rows in the order of step and name, each name thinned evenly to about `max_points`, ends included.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    wanted = [Metric.job_id == job_id]
    if names:
        wanted.append(Metric.name.in_(names))
    if from_step is not None:
        wanted.append(Metric.step >= from_step)
    if to_step is not None:
        wanted.append(Metric.step <= to_step)
    index = func.row_number().over(partition_by=Metric.name, order_by=Metric.step) - 1
    count = func.count().over(partition_by=Metric.name)
    numbered = select(Metric.step, Metric.name, index.label("index"), count.label("count")).where(*wanted).subquery()
    last = numbered.c["count"] - 1
    # Row i of n is kept when i * (max_points - 1) / (n - 1) reaches a new whole number: evenly spread, both ends kept.
    bucket = numbered.c.index * (max_points - 1) / func.greatest(last, 1)
    before = (numbered.c.index - 1) * (max_points - 1) / func.greatest(last, 1)
    kept = or_(numbered.c["count"] <= max_points, numbered.c.index == 0, func.floor(bucket) > func.floor(before))
    statement = (
        select(Metric)
        .join(numbered, (Metric.step == numbered.c.step) & (Metric.name == numbered.c.name))
        .where(Metric.job_id == job_id, kept)
        .order_by(Metric.step, Metric.name)
        .limit(limit + 1)
    )
    if cursor is not None:
        statement = statement.where(tuple_(Metric.step, Metric.name) > tuple_(*_step_and_name(cursor)))
    return cut(list(session.scalars(statement)), limit, lambda metric: f"{metric.step}/{metric.name}")


def _step_and_name(cursor: str) -> tuple[int, str]:
    step, separator, name = decode_cursor(cursor).partition("/")
    if not separator or not step.isdecimal() or len(step) > 10:
        raise invalid_cursor()
    return int(step), name
