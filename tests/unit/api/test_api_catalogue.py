"""The catalogue says of a reward's parameters what the job spec takes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from api.rewards.schemas import body_of
from egrpo.catalogue import REWARDS
from egrpo.config import RewardComponent

COMPONENT: TypeAdapter[Any] = TypeAdapter(RewardComponent)


@pytest.mark.parametrize("type_", sorted(REWARDS))
def test_the_parameters_of_a_reward_are_those_of_its_component(type_: str) -> None:
    schema = body_of(REWARDS[type_]).parameters
    defaults = {name: member["default"] for name, member in schema["properties"].items()}
    assert COMPONENT.validate_python({"type": type_}).model_dump() == {"type": type_, **defaults}
    assert (schema["required"], schema["additionalProperties"]) == ([], False)


def test_a_parameter_comes_with_its_bounds() -> None:
    quality = body_of(REWARDS["compressibility"]).parameters["properties"]["quality"]
    assert (quality["minimum"], quality["maximum"], quality["default"]) == (1, 100, 95)
    assert set(body_of(REWARDS["shapes"]).parameters["properties"]) == {"weight"}
