"""The shape of the catalogue's models."""

from __future__ import annotations

from pydantic import BaseModel

from egrpo import catalogue


class ModelBody(BaseModel):
    """A base model that jobs may name."""

    id: str
    family: str
    repo: str | None
    revision: str | None
    width: int
    height: int
    licence: str
    description: str


def body_of(entry: catalogue.ModelEntry) -> ModelBody:
    """Returns the body of one model."""
    return ModelBody(**{name: getattr(entry, name) for name in ModelBody.model_fields})
