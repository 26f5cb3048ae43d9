"""The shape of the catalogue's rewards."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, Field

from egrpo import catalogue
from egrpo.config import RewardComponent


class RewardBody(BaseModel):
    """A reward that jobs may name, and the range of its scores."""

    type: str
    description: str
    range: tuple[float, float]
    needs: tuple[str, ...] = Field(description="what it must have to run, in words")
    parameters: dict[str, Any] = Field(description="JSON Schema of what a component has beside its `type`")


def body_of(entry: catalogue.RewardEntry) -> RewardBody:
    """Returns the body of one reward."""
    same = ("type", "description", "range", "needs")
    return RewardBody(**{name: getattr(entry, name) for name in same}, parameters=_parameters(entry.type))


def _parameters(type_: str) -> dict[str, Any]:
    """Returns the schema of a reward's component in a job's spec, without the `type` that chooses it."""
    union, _ = get_args(RewardComponent)
    kind: type[BaseModel] = next(
        kind for kind in get_args(union) if type_ in get_args(kind.model_fields["type"].annotation)
    )
    schema = kind.model_json_schema()
    properties = {name: member for name, member in schema["properties"].items() if name != "type"}
    required = [name for name in schema.get("required", []) if name != "type"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
