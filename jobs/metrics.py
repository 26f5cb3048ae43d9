"""Metrics of a job, keyed by step and name: a replayed step overwrites, an older epoch cannot.

Writers hold the job by `leases.guard`; readers have found the job in their project. Rows are read in the order of the
primary key, a page at a time, however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ARRAY, Double, Integer, Text, bindparam, cast, func, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.pages import Page, cut, decode_cursor, invalid_cursor
from jobs.tables import Metric

_LAST_STEP = 2**31 - 1

# Each name that has more than `max_points` rows is cut into stretches of equally many steps, and of each stretch the
# row with the lowest and the one with the highest value stay: a curve drawn from them has every spike of the whole one.
_THINNED = text("""
    WITH counted AS (
        SELECT name, count(*) AS num_rows, min(step) AS first, max(step) AS last
        FROM metrics
        WHERE job_id = :job_id AND step BETWEEN :first AND :last AND (:every_name OR name = ANY(:names))
        GROUP BY name
    ), stretches AS (
        SELECT name, min(ARRAY[value, step]) AS lowest, max(ARRAY[value, step]) AS highest
        FROM metrics JOIN counted USING (name)
        WHERE job_id = :job_id AND step BETWEEN :first AND :last
          AND counted.num_rows > :max_points AND :num_stretches > 0
        GROUP BY name, (step - counted.first)::bigint * :num_stretches / (counted.last - counted.first + 1)
    ), kept AS (
        SELECT name, lowest[2]::integer AS step FROM stretches
        UNION SELECT name, highest[2]::integer FROM stretches
        UNION SELECT name, first FROM counted
        UNION SELECT name, last FROM counted
    )
    SELECT step, name, value, created_at
    FROM metrics JOIN counted USING (name)
    WHERE job_id = :job_id AND step BETWEEN :first AND :last AND (step, name) > (:after_step, :after_name)
      AND (counted.num_rows <= :max_points OR (name, step) IN (SELECT name, step FROM kept))
    ORDER BY step, name
    LIMIT :limit
""").bindparams(bindparam("names", type_=ARRAY(Text)))


@dataclass(frozen=True)
class Wanted:
    """Which rows to read: of these names, or of all; of these steps; thinned to so many a name, or not at all."""

    names: tuple[str, ...] = ()
    from_step: int = 0
    to_step: int = _LAST_STEP
    max_points: int | None = None


class MetricRow(NamedTuple):
    """One number of one step, as it is read."""

    step: int
    name: str
    value: float
    created_at: datetime


@dataclass(frozen=True)
class _Place:
    """Where a page begins, and the last step that there was when the first page was read."""

    step: int
    name: str
    last: int

    def cursor(self) -> str:
        return f"{self.last}/{self.step}/{self.name}"


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


def read(session: Session, job_id: str, wanted: Wanted, *, limit: int, cursor: str | None = None) -> Page[MetricRow]:
    """Returns rows in the order of step and name.

    A name that has more than `max_points` rows is thinned: its first and its last row stay, and the lowest and the
    highest of each of (max_points - 2) // 2 stretches of steps. What came after the first page was read is not on the
    later ones, so that all of them are of one thinning.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    place = None if cursor is None else _place_in(cursor)
    span = _span(session, job_id, wanted, place)
    if span is None:
        return Page([], None)
    first, last = span
    after = place or _Place(first, "", last)
    # A step has a name once: where there are not more steps than points, no name has more rows than that.
    if wanted.max_points is None or last - first < wanted.max_points:
        rows = _whole(session, job_id, wanted, first, after, limit + 1)
    else:
        rows = _thinned(session, job_id, wanted, first, after, limit + 1)
    return cut(rows, limit, lambda row: _Place(row.step, row.name, last).cursor())


def _span(session: Session, job_id: str, wanted: Wanted, place: _Place | None) -> tuple[int, int] | None:
    """Returns the first and the last step with a row of any name, or None."""
    to_step = wanted.to_step if place is None else min(wanted.to_step, place.last)
    is_wanted = Metric.job_id == job_id, Metric.step >= wanted.from_step, Metric.step <= to_step
    # Two lookups: min and max in one query would read every row between them.
    first, last = (
        session.scalar(select(Metric.step).where(*is_wanted).order_by(Metric.job_id, order).limit(1))
        for order in (Metric.step, Metric.step.desc())
    )
    return None if first is None or last is None else (first, last)


def _whole(session: Session, job_id: str, wanted: Wanted, first: int, after: _Place, limit: int) -> list[MetricRow]:
    statement = (
        select(Metric.step, Metric.name, Metric.value, Metric.created_at)
        .where(Metric.job_id == job_id, Metric.step >= first, Metric.step <= after.last)
        .where(tuple_(Metric.step, Metric.name) > tuple_(after.step, after.name))
        .order_by(Metric.step, Metric.name)
        .limit(limit)
    )
    if wanted.names:
        statement = statement.where(Metric.name.in_(wanted.names))
    return [MetricRow(*row) for row in session.execute(statement)]


def _thinned(session: Session, job_id: str, wanted: Wanted, first: int, after: _Place, limit: int) -> list[MetricRow]:
    assert wanted.max_points is not None
    values = {
        "job_id": job_id,
        "names": list(wanted.names),
        "every_name": not wanted.names,
        "first": first,
        "last": after.last,
        "max_points": wanted.max_points,
        "num_stretches": (wanted.max_points - 2) // 2,
        "after_step": after.step,
        "after_name": after.name,
        "limit": limit,
    }
    return [MetricRow(*row) for row in session.execute(_THINNED, values)]


def _place_in(cursor: str) -> _Place:
    parts = decode_cursor(cursor).split("/", 2)
    if len(parts) != 3 or not all(part.isdecimal() and int(part) <= _LAST_STEP for part in parts[:2]):
        raise invalid_cursor()
    return _Place(step=int(parts[1]), name=parts[2], last=int(parts[0]))
