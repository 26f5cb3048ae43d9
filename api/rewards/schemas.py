"""The shape of the catalogue's rewards."""

from __future__ import annotations

from pydantic import BaseModel

from egrpo import catalogue


class RewardBody(BaseModel):
    """A reward that jobs may name, and the range of its scores."""

    type: str
    description: str
    range: tuple[float, float]
    needs: tuple[str, ...]


def body_of(entry: catalogue.RewardEntry) -> RewardBody:
    """Returns the body of one reward."""
    return RewardBody(**{name: getattr(entry, name) for name in RewardBody.model_fields})
