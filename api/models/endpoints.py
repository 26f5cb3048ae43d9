"""GET /v1/models and one of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import TheCaller
from api.models import service
from api.models.schemas import ModelBody
from api.openapi import problems
from api.pagination import List, ListQuery, NoQuery

router = APIRouter(prefix="/v1/models", tags=["catalogue"])


@router.get("", operation_id="listModels", responses=problems(401, 422))
def list_models(_caller: TheCaller, query: Annotated[ListQuery, Query()]) -> List[ModelBody]:
    """Base models that a job may name."""
    return service.page(query)


@router.get("/{model_id}", operation_id="getModel", responses=problems(401, 404, 422))
def get_model(_caller: TheCaller, model_id: str, _query: Annotated[NoQuery, Query()]) -> ModelBody:
    """One base model: its family, its repository at a full commit, and how it is trained and sampled by default."""
    return service.show(model_id)
