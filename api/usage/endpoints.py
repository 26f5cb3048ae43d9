"""GET /v1/usage."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import TheCaller, TheSession
from api.openapi import problems
from api.pagination import List
from api.usage import service
from api.usage.schemas import UsageBody, UsageQuery

router = APIRouter(prefix="/v1/usage", tags=["access"])


@router.get("", operation_id="listUsage", responses=problems(401, 404, 422))
def list_usage(caller: TheCaller, session: TheSession, query: Annotated[UsageQuery, Query()]) -> List[UsageBody]:
    """GPU time by day (UTC) and type of GPU, oldest first; what runs is charged until now."""
    return service.page(session, caller, query)
