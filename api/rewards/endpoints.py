"""GET /v1/rewards and one of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import TheCaller
from api.openapi import problems
from api.pagination import List, ListQuery, NoQuery
from api.rewards import service
from api.rewards.schemas import RewardBody

router = APIRouter(prefix="/v1/rewards", tags=["catalogue"])


@router.get("", operation_id="listRewards", responses=problems(401, 422))
def list_rewards(_caller: TheCaller, query: Annotated[ListQuery, Query()]) -> List[RewardBody]:
    """Rewards that a job may name."""
    return service.page(query)


@router.get("/{type}", operation_id="getReward", responses=problems(401, 404, 422))
def get_reward(_caller: TheCaller, type: str, _query: Annotated[NoQuery, Query()]) -> RewardBody:
    """One reward: the range of its scores, what it needs, and the schema of its parameters."""
    return service.show(type)
