"""GET /v1/jobs/{job_id}/events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import TheCaller, TheServices
from api.events import service
from api.events.schemas import EventList, EventsQuery
from api.openapi import problems

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"])


@router.get("", operation_id="listEvents", responses=problems(401, 404, 422))
async def list_events(
    caller: TheCaller, services: TheServices, job_id: str, query: Annotated[EventsQuery, Query()]
) -> EventList:
    """Events after `after`, in order. With `wait` the answer comes when there is one, or when the job has ended."""
    return await service.wait(services, caller.project_id, job_id, query)
