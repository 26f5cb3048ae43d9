"""Reading the catalogue of rewards."""

from __future__ import annotations

from api.pagination import List
from api.rewards.schemas import RewardBody, body_of
from egrpo import catalogue


def all_rewards() -> List[RewardBody]:
    """Returns the rewards by type."""
    data = [body_of(entry) for _, entry in sorted(catalogue.REWARDS.items())]
    return List(data=data, has_more=False, next_cursor=None)
