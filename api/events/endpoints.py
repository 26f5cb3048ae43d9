"""GET /v1/jobs/{job_id}/events, and the same as a stream."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from api.dependencies import TheCaller, TheServices
from api.events import service, stream
from api.events.schemas import EventList, EventsQuery, StreamQuery
from api.openapi import problems

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"])


@router.get("", operation_id="listEvents", responses=problems(401, 404, 422))
async def list_events(
    caller: TheCaller, services: TheServices, job_id: str, query: Annotated[EventsQuery, Query()]
) -> EventList:
    """Events after `after`, in order. With `wait` the answer comes when there is one, or when the job has ended."""
    return await service.wait(services, caller.project_id, job_id, query)


LastEventIdHeader = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, lt=2**63, description="goes on behind this event; wins over `after`"),
]
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


@router.get(
    "/stream",
    operation_id="streamEvents",
    response_class=StreamingResponse,
    responses={200: {"description": "Server-sent events", "content": _STREAM}, **problems(401, 404, 422)},
)
async def stream_events(
    caller: TheCaller,
    services: TheServices,
    job_id: str,
    query: Annotated[StreamQuery, Query()],
    last_event_id: LastEventIdHeader = None,
) -> StreamingResponse:
    """Events as they come, as server-sent events named by their type, with `seq` as id, until `done`.

    A `job` event without an id follows each batch and shows the job as it is then. A comment every 15 seconds of
    silence is a sign of life. A stream that ends without `done` is to be opened again with `Last-Event-ID`.
    """
    after = query.after if last_event_id is None else last_event_id
    page = await stream.first_page(services, caller.project_id, job_id, after)
    messages = stream.messages(services, caller.project_id, job_id, page)
    # no-transform and X-Accel-Buffering: a proxy that gathers or compresses would keep events back.
    headers = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
    return StreamingResponse(messages, media_type="text/event-stream", headers=headers)
