"""GET /v1/audit-events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.audit_events import service
from api.audit_events.schemas import AuditEventBody, AuditEventsQuery
from api.dependencies import TheCaller, TheSession
from api.openapi import problems
from api.pagination import List

router = APIRouter(prefix="/v1/audit-events", tags=["access"])


@router.get("", operation_id="listAuditEvents", responses=problems(401, 404, 422))
def list_audit_events(
    caller: TheCaller, session: TheSession, query: Annotated[AuditEventsQuery, Query()]
) -> List[AuditEventBody]:
    """What keys did to things of the project, newest first: every change and every download of a file."""
    return service.page(session, caller, query)
