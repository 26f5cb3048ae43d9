"""GET /v1/jobs/{job_id}/logs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import TheCaller, TheServices
from api.logs import service
from api.logs.schemas import LogLines, LogsQuery
from api.openapi import problems

router = APIRouter(prefix="/v1/jobs/{job_id}/logs", tags=["logs"])


@router.get("", operation_id="listLogLines", responses=problems(401, 404, 422))
async def list_log_lines(
    caller: TheCaller, services: TheServices, job_id: str, query: Annotated[LogsQuery, Query()]
) -> LogLines:
    """Lines of the job's log through all attempts, the oldest first, or with `tail` the last ones.

    To follow it, ask again with `cursor` and `wait`: the answer comes when there is a line, or when none can come. Only
    the newest 20 000 lines of a job are kept. Secrets are taken out before a line is written.
    """
    return await service.wait(services, caller.project_id, job_id, query)
