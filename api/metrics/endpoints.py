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
    rows = service.read(session, caller.project_id, job_id, query)
    if query.format == "csv":
        return Response(service.as_csv(rows), media_type="text/csv")
    if query.format == "ndjson":
        return Response(service.as_ndjson(rows), media_type="application/x-ndjson")
    return List(data=rows, has_more=False, next_cursor=None)
