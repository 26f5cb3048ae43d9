"""The shape of API keys."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from api.administration import ProjectQuery
from api.pagination import ListQuery
from egrpo.spec_model import SpecModel
from jobs.api_keys import IssuedKey
from jobs.scopes import Scope
from jobs.spec import Time
from jobs.tables import APIKey

_WEEK_S = 7 * 24 * 3600


class NewAPIKey(SpecModel):
    """What a new key is for, what it may do, and when its time ends."""

    name: str = Field(min_length=1, max_length=200, examples=["ci"])
    scopes: list[Scope] = Field(min_length=1, max_length=50, examples=[["jobs:read", "jobs:write"]])
    expires_at: Time | None = Field(
        default=None, description="at most ten years ahead; without it the key is valid until it is revoked"
    )


class APIKeyBody(BaseModel):
    """A key as it is shown after it was issued: without the key."""

    id: str = Field(examples=["key_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    project_id: str
    name: str
    hint: str = Field(description="the key's first characters", examples=["ega_k3v5zq"])
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None = Field(description="to the minute")
    expires_at: datetime | None
    revoked_at: datetime | None


class IssuedAPIKeyBody(APIKeyBody):
    """A key as it is shown once."""

    key: str | None = Field(description="shown this once; null when the answer is replayed, for it is not stored")


class APIKeysQuery(ListQuery, ProjectQuery):
    """Which keys."""


class RotateQuery(ProjectQuery):
    """How the old key ends."""

    overlap_seconds: int = Field(default=0, ge=0, le=_WEEK_S, description="how long the old key stays valid")


def body_of(row: APIKey) -> APIKeyBody:
    """Returns the body of a key."""
    return APIKeyBody.model_validate(row, from_attributes=True)


def body_to_keep(issued: IssuedKey) -> IssuedAPIKeyBody:
    """Returns the body of a new key as it may be stored: without the key."""
    return IssuedAPIKeyBody(**body_of(issued.row).model_dump(), key=None)
