"""Reading the catalogue of rewards."""

from __future__ import annotations

from api.pagination import List, ListQuery, whole_list
from api.rewards.schemas import RewardBody, body_of
from egrpo import catalogue
from jobs.errors import NotFound


def page(query: ListQuery) -> List[RewardBody]:
    """Returns the rewards by type."""
    data = [body_of(entry) for _, entry in sorted(catalogue.REWARDS.items())]
    return whole_list(data, query, lambda body: body.type)


def show(type_: str) -> RewardBody:
    """Returns one reward.

    Raises:
        NotFound: the catalogue has none of that type.
    """
    if type_ not in catalogue.REWARDS:
        raise NotFound(f"there is no reward {type_!r}; there are {', '.join(sorted(catalogue.REWARDS))}")
    return body_of(catalogue.REWARDS[type_])
