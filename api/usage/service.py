"""Reading what a project has used."""

from __future__ import annotations

from datetime import UTC, date, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.administration import project_meant
from api.pagination import List, whole_list
from api.usage.schemas import UsageBody, UsageQuery
from jobs import gpu_time
from jobs.api_keys import Caller
from jobs.errors import FieldError, InvalidRequest

_DAYS = 30
_MOST_DAYS = 366


def page(session: Session, caller: Caller, query: UsageQuery) -> List[UsageBody]:
    """Returns GPU time by day and type, oldest first."""
    project_id = project_meant(session, caller, query.project_id)
    first, last = _days(session, query)
    used = gpu_time.of_project(session, project_id, first, last)
    data = [UsageBody(day=each.day, gpu_type=each.gpu_type, gpu_seconds=each.gpu_seconds) for each in used]
    return whole_list(data, query, lambda body: f"{body.day} {body.gpu_type}")


def _days(session: Session, query: UsageQuery) -> tuple[date, date]:
    """Returns the first and the last day.

    Raises:
        InvalidRequest: they are too many, or none.
    """
    last = query.to_day or session.scalars(select(func.now())).one().astimezone(UTC).date()
    first = query.from_day or max(last, date.min + timedelta(days=_DAYS)) - timedelta(days=_DAYS)
    if not 0 <= (last - first).days < _MOST_DAYS or not 1970 <= first.year <= last.year < 9999:
        allowed = f"a day at most {_MOST_DAYS - 1} days before `to_day`"
        raise InvalidRequest([FieldError("out_of_range", "these are no days", parameter="from_day", allowed=allowed)])
    return first, last
