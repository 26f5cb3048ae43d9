"""The shape of secrets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr
from pydantic_core import PydanticCustomError

from egrpo.spec_model import SpecModel
from jobs.tables import Secret


def _without_white_space_around(value: SecretStr) -> SecretStr:
    if value.get_secret_value() != value.get_secret_value().strip():
        raise PydanticCustomError(
            "white_space_around", "must not begin or end with white space, as a file ends with a newline"
        )
    return value


# The shortest is as long as it is because a value is searched for in logs, to be hidden there.
Value = Annotated[
    SecretStr,
    Field(min_length=8, max_length=16_384, description="never shown again", examples=["hf_0123456789abcdef"]),
    AfterValidator(_without_white_space_around),
]


class NewSecret(SpecModel):
    """A secret to be kept."""

    name: str = Field(min_length=1, max_length=200, examples=["hub token"])
    value: Value


class NewValue(SpecModel):
    """What takes the place of a secret's value."""

    value: Value


class SecretBody(BaseModel):
    """A secret without its value."""

    id: str = Field(examples=["sec_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    name: str
    created_at: datetime
    replaced_at: datetime | None
    last_used_at: datetime | None = Field(description="when it was last given to a trainer")


def body_of(secret: Secret) -> SecretBody:
    """Returns the body of a secret."""
    return SecretBody.model_validate(secret, from_attributes=True)
