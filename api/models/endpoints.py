"""GET /v1/models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import TheCaller
from api.models import service
from api.models.schemas import ModelBody
from api.openapi import problems
from api.pagination import List, ListQuery

router = APIRouter(prefix="/v1/models", tags=["catalogue"])


@router.get("", operation_id="listModels", responses=problems(401, 422))
def list_models(_caller: TheCaller, query: Annotated[ListQuery, Query()]) -> List[ModelBody]:
    """Base models that a job may name."""
    return service.page(query)
