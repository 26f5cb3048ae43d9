"""Reading the catalogue of base models."""

from __future__ import annotations

from api.models.schemas import ModelBody, body_of
from api.pagination import List, ListQuery, whole_list
from egrpo import catalogue
from jobs.errors import NotFound


def page(query: ListQuery) -> List[ModelBody]:
    """Returns the base models by id."""
    data = [body_of(entry) for _, entry in sorted(catalogue.MODELS.items())]
    return whole_list(data, query, lambda body: body.id)


def show(model_id: str) -> ModelBody:
    """Returns one base model.

    Raises:
        NotFound: the catalogue has none of that id.
    """
    if model_id not in catalogue.MODELS:
        raise NotFound(f"there is no model {model_id!r}; there are {', '.join(sorted(catalogue.MODELS))}")
    return body_of(catalogue.MODELS[model_id])
