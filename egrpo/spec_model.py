"""What every part of a spec is made of: a base class, and unions whose errors name one field, not one per branch."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Discriminator

# Unions are told apart by the JSON type. The tags begin with "#", which keeps them out of JSON pointers.
OBJECT_OR_SCALAR = Discriminator(lambda value: "#object" if isinstance(value, Mapping | BaseModel) else "#scalar")
LIST_OR_SCALAR = Discriminator(lambda value: "#list" if isinstance(value, list | tuple) else "#scalar")


class SpecModel(BaseModel):
    """Base of every part of the spec: unknown fields are errors, nothing changes after parsing, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
