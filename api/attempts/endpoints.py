"""GET /v1/jobs/{job_id}/attempts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.attempts import service
from api.attempts.schemas import AttemptBody
from api.dependencies import TheCaller, TheSession
from api.openapi import problems
from api.pagination import List, ListQuery

router = APIRouter(prefix="/v1/jobs/{job_id}/attempts", tags=["attempts"])


@router.get("", operation_id="listAttempts", responses=problems(401, 404, 422))
def list_attempts(
    caller: TheCaller, session: TheSession, job_id: str, query: Annotated[ListQuery, Query()]
) -> List[AttemptBody]:
    """Attempts of the job, the first one first: which worker, from which step, and how each ended."""
    return service.page(session, caller.project_id, job_id, query)
