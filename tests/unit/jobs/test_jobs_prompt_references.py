"""Prompts by dataset: filled in for the checks and the trainer, kept as references, problems told where they are."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import InvalidRequest, NotFound
from jobs.prompt_references import DatasetPrompts
from jobs.spec import document_of, parse

ID = "ds_" + "0" * 26
SPEC: dict[str, Any] = {
    "name": "posters",
    "base_model": "tiny-flux-shapes",
    "prompts": {"dataset": ID},
    "evaluation": {"prompts": {"dataset": ID, "split": "test"}},
    "reward": {"components": [{"type": "shapes"}]},
}
SPLITS = {"train": ["a red circle", "a blue square"], "test": ["a green triangle"]}


def prompts_of(reference: DatasetPrompts) -> list[str]:
    if reference.split not in SPLITS:
        raise NotFound(f"no split {reference.split!r}")
    return SPLITS[reference.split]


def problems_of(document: Any) -> list[tuple[str | None, str]]:
    with pytest.raises(InvalidRequest) as caught:
        parse(document, prompts_of)
    return [(problem.pointer, problem.code) for problem in caught.value.errors]


def test_the_trainer_gets_the_prompts_and_the_row_keeps_the_references() -> None:
    spec = parse(SPEC, prompts_of)
    assert spec.train_spec().prompts.inline == SPLITS["train"]
    stored = document_of(spec)
    assert stored["prompts"] == {"dataset": ID, "split": "train"}
    assert stored["evaluation"]["prompts"] == {"dataset": ID, "split": "test"}


def test_a_job_by_dataset_trains_what_a_job_with_the_same_prompts_written_out_trains() -> None:
    inline = {**SPEC, "prompts": {"inline": SPLITS["train"]}, "evaluation": {"prompts": {"inline": SPLITS["test"]}}}
    assert parse(SPEC, prompts_of).train_spec().digest() == parse(inline).train_spec().digest()


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"dataset": ID, "split": "dev"}, [("/prompts/dataset", "unknown_dataset")]),
        ({"dataset": "posters"}, [("/prompts/dataset", "wrong_format")]),
        ({"dataset": ID, "inline": ["a"]}, [("/prompts/inline", "unknown_field")]),
        ({"dataset": 7}, [("/prompts/dataset", "wrong_type")]),
    ],
)
def test_a_wrong_reference_is_told_once_and_at_its_place(prompts: Any, expected: list[tuple[str, str]]) -> None:
    assert problems_of({**SPEC, "prompts": prompts}) == expected


def test_a_wrong_reference_hides_no_other_problem() -> None:
    found = problems_of({**SPEC, "prompts": {"dataset": "?"}, "training": {"steps": -1}})
    assert found == [("/prompts/dataset", "wrong_format"), ("/training/steps", "out_of_range")]


def test_a_prompt_of_a_dataset_that_the_reward_cannot_score_is_told_at_the_dataset() -> None:
    def unscorable(_: DatasetPrompts) -> list[str]:
        return ["a red circle", "a cathedral at dawn"]

    with pytest.raises(InvalidRequest) as caught:
        parse({**SPEC, "evaluation": {}}, unscorable)
    (problem,) = caught.value.errors
    assert (problem.pointer, problem.code) == ("/prompts/dataset", "prompt_not_scorable")
    assert "prompt 1 of split 'train'" in problem.detail


def test_prompts_that_are_neither_get_the_fields_of_both() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({**SPEC, "prompts": {"file": "x"}}, prompts_of)
    unknown = next(problem for problem in caught.value.errors if problem.code == "unknown_field")
    assert unknown.pointer == "/prompts/file"
    assert unknown.allowed == ["dataset", "inline", "split"]
