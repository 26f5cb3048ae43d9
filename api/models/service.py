"""Reading the catalogue of base models."""

from __future__ import annotations

from api.models.schemas import ModelBody, body_of
from api.pagination import List, ListQuery, whole_list
from egrpo import catalogue


def page(query: ListQuery) -> List[ModelBody]:
    """Returns the base models by id."""
    data = [body_of(entry) for _, entry in sorted(catalogue.MODELS.items())]
    return whole_list(data, query, lambda body: body.id)
