"""Reading metrics and writing them as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.metrics.schemas import MetricBody, MetricsQuery, body_of
from api.pagination import List
from jobs import jobs, metrics

COLUMNS = ("step", "name", "value", "created_at")


def read(session: Session, project_id: str, job_id: str, query: MetricsQuery) -> List[MetricBody]:
    """Returns a page of the numbers in the order of step and name.

    Raises:
        NotFound: the project has no such job.
    """
    jobs.get(session, project_id, job_id)
    found = metrics.read(
        session,
        job_id,
        names=query.names,
        from_step=query.from_step,
        to_step=query.to_step,
        max_points=query.max_points,
        limit=query.limit,
        cursor=query.cursor,
    )
    data = [body_of(row) for row in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def as_csv(rows: Sequence[MetricBody]) -> str:
    """Returns the numbers as CSV with a header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        shown = row.model_dump(mode="json")
        writer.writerow([shown[name] for name in COLUMNS])
    return out.getvalue()


def as_ndjson(rows: Sequence[MetricBody]) -> str:
    """Returns the numbers as one JSON object a line."""
    return "".join(row.model_dump_json() + "\n" for row in rows)
