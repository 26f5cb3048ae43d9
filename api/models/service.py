"""Reading the catalogue of base models."""

from __future__ import annotations

from api.models.schemas import ModelBody, body_of
from api.pagination import List
from egrpo import catalogue


def all_models() -> List[ModelBody]:
    """Returns the base models by id."""
    data = [body_of(entry) for _, entry in sorted(catalogue.MODELS.items())]
    return List(data=data, has_more=False, next_cursor=None)
