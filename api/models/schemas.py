"""The shape of the catalogue's models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from egrpo import catalogue


class ModelBody(BaseModel):
    """A base model that jobs may name."""

    id: str = Field(examples=["flux-1-dev"])
    family: str
    repo: str | None = Field(description="on the Hub; null for a model that is part of the service")
    revision: str | None = Field(description="the commit of `repo` that is trained, 40 hexadecimal digits")
    gated: bool
    width: int
    height: int
    guidance: Literal["embedded", "classifier_free", "none"]
    guidance_scale: float
    eval_steps: int
    default_lora_targets: str
    licence: str
    description: str


def body_of(entry: catalogue.ModelEntry) -> ModelBody:
    """Returns the body of one model."""
    return ModelBody(**{name: getattr(entry, name) for name in ModelBody.model_fields})
