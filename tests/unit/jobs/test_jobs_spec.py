"""The job spec: what the service adds, and every problem of a document at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egrpo.catalogue import MODELS
from egrpo.config import TrainSpec
from jobs.errors import FieldError, InvalidRequest
from jobs.spec import JobSpec, document_of, parse

GOOD: dict[str, Any] = {
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle"]},
    "reward": {"components": [{"type": "shapes"}]},
}


def problems(document: Any) -> dict[str | None, FieldError]:
    with pytest.raises(InvalidRequest) as caught:
        parse(document)
    return {error.pointer: error for error in caught.value.errors}


def test_three_fields_are_enough_and_the_rest_is_filled_in() -> None:
    document = document_of(parse(GOOD))
    assert document["training"]["lora"]["rank"] == 32
    assert document["metadata"] == {}
    assert (document["priority"], document["resources"]) == ("normal", {"gpus": 1, "gpu_type": None})
    assert parse(document) == parse(GOOD)


def test_the_trainer_gets_its_part_and_the_digest_is_of_it() -> None:
    spec = parse({**GOOD, "metadata": {"a": "b"}, "resources": {"gpus": 0}})
    train = spec.train_spec()
    assert type(train) is TrainSpec
    assert train.digest() == parse(GOOD).train_spec().digest()
    assert set(train.model_dump()) == set(TrainSpec.model_fields)


def test_a_folder_of_the_server_is_no_model(tmp_path: Any) -> None:
    error = problems({**GOOD, "base_model": str(tmp_path)})["/base_model"]
    assert (error.code, error.allowed) == ("unknown_model", sorted(MODELS))


def test_a_repository_that_is_not_in_the_catalogue_is_no_model() -> None:
    model = {"repo": "someone/model", "revision": "0" * 40}
    assert problems({**GOOD, "base_model": model, "height": 17}).keys() == {"/base_model", "/height"}
    assert problems({**GOOD, "base_model": {"repo": "a/b", "revision": "main"}}).keys() == {"/base_model/revision"}


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"training": {"steps": "300"}}, "/training/steps", "wrong_type"),
        ({"training": {"steps": True}}, "/training/steps", "wrong_type"),
        ({"training": {"steps": 1.5}}, "/training/steps", "wrong_type"),
        ({"training": {"steps": 0}}, "/training/steps", "out_of_range"),
        ({"training": {"learning_rate": float("inf")}}, "/training/learning_rate", "out_of_range"),
        ({"training": []}, "/training", "wrong_type"),
        ({"prompts": {"inline": []}}, "/prompts/inline", "too_short"),
        ({"prompts": {"inline": ["x" * 1001]}}, "/prompts/inline/0", "too_long"),
        ({"prompts": {"inline": ["a red star"] * 10_001}}, "/prompts/inline", "too_long"),
        ({"prompts": {"inline": ["a red circle", "a cat"]}}, "/prompts/inline/1", "prompt_not_scorable"),
        ({"evaluation": {"prompts": {"inline": ["a cat"]}}}, "/evaluation/prompts/inline/0", "prompt_not_scorable"),
        ({"prompts": {"dataset": "ds_1"}}, "/prompts/dataset", "wrong_format"),
        ({"reward": {"components": [{"weight": 1}]}}, "/reward/components/0/type", "missing"),
        ({"reward": {"components": [{"type": "clip"}]}}, "/reward/components/0/type", "unknown_reward"),
        ({"reward": {"components": []}}, "/reward/components", "too_short"),
        ({"method": {"type": "ppo"}}, "/method/type", "not_allowed"),
        ({"metadata": {"k": 1}}, "/metadata/k", "wrong_type"),
        ({"metadata": {"k" * 65: "v"}}, "/metadata/" + "k" * 65, "too_long"),
        ({"metadata": {"k": "v" * 513}}, "/metadata/k", "too_long"),
        ({"metadata": {str(n): "" for n in range(17)}}, "/metadata", "too_long"),
        ({"a/b~c": 1}, "/a~1b~0c", "unknown_field"),
        ({"priority": 10}, "/priority", "not_allowed"),
        ({"priority": "urgent"}, "/priority", "not_allowed"),
        ({"resources": {"gpus": 9}}, "/resources/gpus", "out_of_range"),
        ({"resources": {"gpus": 3}}, "/resources/gpus", "not_allowed"),
        ({"resources": {"gpu_type": "H100 SXM"}}, "/resources/gpu_type", "wrong_format"),
        ({"name": "a\0"}, "/name", "wrong_format"),
        ({"metadata": {"a": "\ud800"}}, "/metadata/a", "wrong_format"),
    ],
)
def test_one_problem_with_its_pointer(change: dict[str, Any], pointer: str, code: str) -> None:
    found = problems({**GOOD, **change})
    assert found[pointer].code == code


def test_what_would_be_allowed() -> None:
    found = problems({**GOOD, "method": {"merging": "some", "etta": 1}, "training": {"steps": 0}})
    assert found["/method/merging"].allowed == ["adaptive", "fixed", "none"]
    assert "eta" in found["/method/etta"].allowed
    assert found["/training/steps"].allowed == ">= 1"


def test_what_a_reward_of_that_type_would_allow() -> None:
    rewards = [{"type": "diversity", "qualty": 1}, {"type": "compressibility", "qualty": 1}, {"type": "clip"}]
    found = problems({**GOOD, "reward": {"components": rewards}})
    assert found["/reward/components/0/qualty"].allowed == ["grid", "type", "weight"]
    assert found["/reward/components/1/qualty"].allowed == ["quality", "type", "weight"]
    assert found["/reward/components/2/type"].allowed == [
        "shapes", "compressibility", "incompressibility", "diversity",
    ]  # fmt: skip
    twice = problems({**GOOD, "reward": {"components": [{"type": "shapes"}, {"type": "shapes"}]}})
    assert twice["/reward/components"].code == "not_allowed"


def test_no_document_at_all() -> None:
    for document in (None, [], "x", 1):
        error = problems(document)[""]
        assert (error.code, error.detail) == ("wrong_type", "must be an object")


def test_ten_thousand_problems_are_cut_short() -> None:
    assert len(problems({**GOOD, "prompts": {"inline": [""] * 10_000}})) == 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(JobSpec.model_fields)), JSON)
def test_whatever_stands_in_a_field_is_taken_or_refused_with_a_pointer_there(field: str, value: Any) -> None:
    try:
        document_of(parse({**GOOD, field: value}))
        return
    except InvalidRequest as error:
        pointers = [problem.pointer for problem in error.errors]
    assert pointers
    assert all(pointer is not None and pointer.startswith(f"/{field}") for pointer in pointers)
