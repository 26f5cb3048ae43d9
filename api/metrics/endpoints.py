"""GET /v1/jobs/{job_id}/metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.dependencies import TheCaller, TheSession
from api.metrics import service
from api.metrics.schemas import MetricBody, MetricsQuery
from api.openapi import problems
from api.pagination import List

router = APIRouter(prefix="/v1/jobs/{job_id}/metrics", tags=["metrics"])

_TEXT = {"text/csv": {"schema": {"type": "string"}}, "application/x-ndjson": {"schema": {"type": "string"}}}


@router.get(
    "",
    operation_id="listMetrics",
    response_model=List[MetricBody],
    responses={200: {"content": _TEXT}, **problems(401, 404, 422)},
)
def list_metrics(
    caller: TheCaller, session: TheSession, job_id: str, query: Annotated[MetricsQuery, Query()]
) -> Response | List[MetricBody]:
    """Numbers of the job by step and name: as one JSON list, as CSV, or as one JSON object a line."""
    page = service.read(session, caller.project_id, job_id, query)
    if query.format == "csv":
        return Response(service.as_csv(page.data), media_type="text/csv", headers=_next(page))
    if query.format == "ndjson":
        return Response(service.as_ndjson(page.data), media_type="application/x-ndjson", headers=_next(page))
    return page


def _next(page: List[MetricBody]) -> dict[str, str]:
    """Returns where the text formats say that there is more: they have no place for it in the body."""
    return {"X-Next-Cursor": page.next_cursor} if page.next_cursor else {}
