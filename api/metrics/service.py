"""Reading metrics: a page as JSON, or all of them as text, which is read while it is sent."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from api.metrics.schemas import MAX_POINTS, MAX_ROWS, MetricBody, MetricsQuery, body_of
from api.pagination import List
from api.services import Services
from jobs import jobs, metrics
from jobs.db import translated_errors
from jobs.errors import FieldError, InvalidRequest
from jobs.metrics import MetricRow, Wanted
from jobs.pages import Page

_HEADER = "step,name,value,created_at\n"
_ROWS_AT_ONCE = 10_000  # Of a text: about a megabyte.


def page(services: Services, project_id: str, job_id: str, query: MetricsQuery) -> List[MetricBody]:
    """Returns a page of the numbers in the order of step and name.

    Raises:
        NotFound: the project has no such job.
        InvalidRequest: the cursor is not one of ours.
    """
    wanted = _wanted(query, MAX_POINTS)
    found = _read(services, project_id, job_id, wanted, limit=query.limit or MAX_ROWS, cursor=query.cursor)
    data = [body_of(row) for row in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def text(services: Services, project_id: str, job_id: str, query: MetricsQuery) -> Iterator[str]:
    """Returns all the numbers as CSV or NDJSON, in parts. The first is read here, the others when they are taken.

    Between two parts no connection to the database is held: a slow reader keeps nothing from others.

    Raises:
        NotFound: the project has no such job.
        InvalidRequest: a text has no pages.
    """
    paged = [name for name in ("limit", "cursor") if getattr(query, name) is not None]
    if paged:
        detail = f"a {query.format} has every row in one answer; leave this out, or choose steps and names"
        raise InvalidRequest([FieldError("invalid_parameter", detail, parameter=name) for name in paged])
    wanted = _wanted(query, None)

    def part(cursor: str | None) -> Page[MetricRow]:
        return _read(services, project_id, job_id, wanted, limit=_ROWS_AT_ONCE, cursor=cursor)

    if query.format == "csv":
        return _parts(_HEADER, part(None), part, _as_csv)
    return _parts("", part(None), part, _as_ndjson)


def _parts(
    head: str,
    rows: Page[MetricRow],
    part: Callable[[str | None], Page[MetricRow]],
    write: Callable[[Sequence[MetricRow]], str],
) -> Iterator[str]:
    yield head + write(rows.items)
    while rows.next_cursor is not None:
        rows = part(rows.next_cursor)
        yield write(rows.items)


def _read(
    services: Services, project_id: str, job_id: str, wanted: Wanted, *, limit: int, cursor: str | None
) -> Page[MetricRow]:
    with translated_errors(), services.readings() as session:
        jobs.get(session, project_id, job_id)
        return metrics.read(session, job_id, wanted, limit=limit, cursor=cursor)


def _wanted(query: MetricsQuery, max_points: int | None) -> Wanted:
    """Returns what the query asks for; `max_points` is for the one that does not say."""
    steps = {"from_step": query.from_step, "to_step": query.to_step}
    given = {name: step for name, step in steps.items() if step is not None}
    return Wanted(names=tuple(query.names), max_points=query.max_points or max_points, **given)


def _as_csv(rows: Sequence[MetricRow]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows((*row[:-1], row.created_at.isoformat().replace("+00:00", "Z")) for row in rows)
    return out.getvalue()


def _as_ndjson(rows: Sequence[MetricRow]) -> str:
    return "".join(body_of(row).model_dump_json() + "\n" for row in rows)
