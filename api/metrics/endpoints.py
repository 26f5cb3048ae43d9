"""GET /v1/jobs/{job_id}/metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from api.answers import model_response
from api.dependencies import TheCaller, TheServices
from api.metrics import service
from api.metrics.schemas import MetricBody, MetricsQuery
from api.openapi import problems
from api.pagination import List

router = APIRouter(prefix="/v1/jobs/{job_id}/metrics", tags=["metrics"])

_MEDIA_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
_TEXT = {media_type: {"schema": {"type": "string"}} for media_type in _MEDIA_TYPES.values()}


@router.get(
    "",
    operation_id="listMetrics",
    response_model=List[MetricBody],
    responses={200: {"content": _TEXT}, **problems(401, 404, 422)},
)
def list_metrics(
    caller: TheCaller, services: TheServices, job_id: str, query: Annotated[MetricsQuery, Query()]
) -> Response:
    """Numbers of the job by step and name: pages of JSON for curves, or everything as CSV or one JSON object a line."""
    if query.format == "json":
        return model_response(service.page(services, caller.project_id, job_id, query))
    parts = service.text(services, caller.project_id, job_id, query)
    return StreamingResponse(parts, media_type=_MEDIA_TYPES[query.format])
