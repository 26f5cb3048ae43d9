"""GET /v1/rewards."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import TheCaller
from api.openapi import problems
from api.pagination import List, ListQuery
from api.rewards import service
from api.rewards.schemas import RewardBody

router = APIRouter(prefix="/v1/rewards", tags=["catalogue"])


@router.get("", operation_id="listRewards", responses=problems(401, 422))
def list_rewards(_caller: TheCaller, query: Annotated[ListQuery, Query()]) -> List[RewardBody]:
    """Base rewards that a job may name."""
    return service.page(query)
