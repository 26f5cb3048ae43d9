"""Reading the catalogue of rewards."""

from __future__ import annotations

from api.pagination import List, ListQuery, whole_list
from api.rewards.schemas import RewardBody, body_of
from egrpo import catalogue


def page(query: ListQuery) -> List[RewardBody]:
    """Returns the rewards by type."""
    data = [body_of(entry) for _, entry in sorted(catalogue.REWARDS.items())]
    return whole_list(data, query, lambda body: body.type)
