"""The spec: what is accepted, what is refused and how the refusal reads."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from egrpo.catalogue import MODELS
from egrpo.config import TrainSpec, parse_spec
from egrpo.errors import ConfigError, DispersionError, EGRPOError, NonFiniteError, StopRequested
from egrpo.spec_issues import spec_issues
from egrpo.tiny.captions import all_captions

MINIMAL: dict[str, Any] = {
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle", "a blue square"]},
    "reward": {"components": [{"type": "shapes"}]},
}


def changed(**sections: Any) -> dict[str, Any]:
    return {**copy.deepcopy(MINIMAL), **sections}


def refusal(document: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_spec(document)
    return str(caught.value)


def test_three_fields_are_enough() -> None:
    spec = parse_spec(MINIMAL)
    assert (spec.method.sampling_steps, spec.method.group_size, spec.method.entropy_threshold) == (16, 12, 2.2)
    assert (spec.training.lora.rank, spec.training.lora.alpha, spec.training.clip_range) == (32, 64, 1e-4)
    assert parse_spec(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (changed(base_model="x"), "/base_model: base_model is unknown (got 'x'); allowed: ['flux-1-dev', "),
        (changed(base_model={"repo": "a/b", "revision": "main"}), "/base_model/revision: String should match pattern"),
        (changed(prompts={"inline": []}), "/prompts/inline: List should have at least 1 item"),
        (changed(prompts={"inline": ["a", "  "]}), "/prompts/inline/1: String should have at least 1 character"),
        (changed(prompts={"inline": ["a" * 1001]}), "/prompts/inline/0: String should have at most 1000 characters"),
        (changed(prompts={"inline": ["a"] * 10_001}), "/prompts/inline: List should have at most 10000 items"),
        (changed(reward={"components": [{"type": "clip"}]}), "/reward/components/0/type: Input should be 'shapes'"),
        (changed(reward={"components": []}), "/reward/components: List should have at least 1 item"),
        (changed(training={"steps": "many"}), "/training/steps: Input should be a valid integer"),
        (changed(training={"steps": 0}), "Input should be greater than or equal to 1 (got 0); allowed: >= 1"),
        (changed(training={"learning_rate": float("nan")}), "/training/learning_rate: Input should be"),
        (changed(training={"lr_schedule": "step"}), "/training/lr_schedule: Input should be 'constant',"),
        (changed(training={"lora": {"targets": "mlp"}}), "/training/lora/targets: Input should be 'attention', "),
        (changed(training={"lora": {"targets": []}}), "/training/lora/targets: List should have at least 1 item"),
        (changed(method={"type": "dance"}), "/method/type: Input should be 'egrpo', 'g2rpo'"),
        (changed(method={"merging": "fixed"}), "/method/fixed_length: merging 'fixed' needs fixed_length"),
        (changed(method={"fixed_length": 2}), "/method/fixed_length: fixed_length goes with merging 'fixed'"),
        (changed(method={"active_steps": [3, 1]}), "/method/active_steps: active_steps must be different indices"),
        (changed(method={"active_steps": [16]}), "from 0 to 15 (got [16])"),
        (changed(method={"active_steps": 1.5}), "/method/active_steps: Input should be less than or equal to 1"),
        (changed(method={"active_steps_per_update": 9}), "/method/active_steps_per_update: there are 8 active steps"),
        (changed(evaluation={"prompts": 0}), "/evaluation/prompts: Input should be greater than or equal to 1 (got 0)"),
        (changed(evaluation={"prompts": {"inline": [3]}}), "/evaluation/prompts/inline/0: Input should be"),
        (changed(export={"formats": ["onnx"]}), "/export/formats/0: Input should be 'diffusers', 'peft' or 'comfyui'"),
        (changed(export={"formats": ["peft", "peft"]}), "/export/formats: every format may be named once (got ['peft'"),
        (changed(height=100), "/height: Input should be a multiple of 16 (got 100); allowed: a multiple of 16"),
        (changed(colour=1), "/colour: Extra inputs are not permitted (got 1)"),
    ],
)  # fmt: skip
def test_a_refusal_names_field_value_and_what_is_allowed(document: dict[str, Any], expected: str) -> None:
    assert expected in refusal(document)


def test_a_format_that_the_family_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = MODELS["tiny-flux-shapes"].model_copy(update={"family": "sana"})
    monkeypatch.setitem(MODELS, entry.id, entry)
    parse_spec(changed(export={"formats": ["peft", "diffusers"]}))
    assert refusal(changed(export={"formats": ["peft", "comfyui"]})) == (
        "/export/formats/1: ComfyUI has no key map for the family 'sana'; allowed: 'diffusers', 'peft' (got 'comfyui')"
    )


def test_all_problems_at_once() -> None:
    lines = refusal(changed(colour=1, training={"steps": 0}, method={"eta": -1})).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["/colour", "/method/eta", "/training/steps"]


def test_an_over_dispersed_plan_is_refused_by_its_steps() -> None:
    text = refusal(changed(method={"shift": 3.0, "merging": "fixed", "fixed_length": 6}))
    assert text.startswith(
        "/method/dispersion_limit: dispersion_limit 1.5 is exceeded by the merged steps 0->6 (2.59), 1->7"
    )
    parse_spec(changed(method={"shift": 3.0, "merging": "fixed", "fixed_length": 6, "dispersion_limit": 3}))


def test_the_pipelines_own_schedule_is_checked_when_it_is_known() -> None:
    method = parse_spec(changed(method={"merging": "fixed", "fixed_length": 6})).method
    with pytest.raises(DispersionError):
        method.plan([1 - i / 16 for i in range(17)])


def test_pointers_and_codes_one_by_one() -> None:
    with pytest.raises(ValidationError) as caught:
        TrainSpec.model_validate(changed(**{"a/b~c": 1}, training={"steps": 0}))
    issues = {issue.pointer: issue for issue in spec_issues(caught.value)}
    assert issues["/a~1b~0c"].code == "extra_forbidden"
    assert issues["/training/steps"].allowed == ">= 1"


def test_a_service_can_shut_out_local_folders(tmp_path: Path) -> None:
    class JobSpec(TrainSpec):
        local_models_allowed = False

    document = changed(base_model=str(tmp_path))
    assert parse_spec(document).base_model == str(tmp_path)
    with pytest.raises(ValidationError, match="base_model is unknown"):
        JobSpec.model_validate(document)


def test_prompts_set_aside_are_not_trained_on() -> None:
    names = [str(caption) for caption in all_captions(1)[:40]]
    train, held = parse_spec(changed(prompts={"inline": names + names[:5]}, evaluation={"prompts": 10})).split_prompts()
    assert len(train) == 30
    assert len(held) == 10
    assert not set(train) & set(held)
    again = parse_spec(changed(prompts={"inline": names}, evaluation={"prompts": 10})).split_prompts()[1]
    assert held == again


def test_few_prompts_are_shared_fairly() -> None:
    assert [len(part) for part in parse_spec(MINIMAL).split_prompts()] == [1, 1]
    single = parse_spec(changed(prompts={"inline": ["a red star"]}))
    assert single.split_prompts() == (["a red star"], ["a red star"])
    given = parse_spec(changed(evaluation={"prompts": {"inline": ["a red star", "a red star", "a blue cross"]}}))
    assert given.split_prompts() == (["a red circle", "a blue square"], ["a red star", "a blue cross"])


def test_prompts_that_the_reward_cannot_read_are_refused_each_at_its_place() -> None:
    lost = changed(
        prompts={"inline": ["a red circle", "a cat", "a dog"]}, evaluation={"prompts": {"inline": ["a red wheel"]}}
    )
    lines = refusal({**lost, "training": {"steps": 0}}).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "/prompts/inline/1",
        "/prompts/inline/2",
        "/training/steps",
        "/evaluation/prompts/inline/0",
    ]
    assert "'a cat' is not a caption of the shapes world" in lines[0]


def test_the_digest_follows_what_decides_the_result() -> None:
    digest = parse_spec(MINIMAL).digest()
    assert parse_spec(changed(name="another")).digest() == digest
    assert parse_spec(changed(training={"seed": 1})).digest() != digest


def test_errors_survive_a_pickle() -> None:
    for error in (ConfigError("a"), NonFiniteError("b"), StopRequested("c"), EGRPOError("d")):
        copy_of_error = pickle.loads(pickle.dumps(error))
        assert (type(copy_of_error), str(copy_of_error)) == (type(error), str(error))
    assert issubclass(ConfigError, ValueError)
    assert issubclass(NonFiniteError, ArithmeticError)


def test_spec_and_plan_are_free_of_torch() -> None:
    code = (
        "import sys, egrpo.config, egrpo.catalogue, egrpo.schedule, egrpo.rewards, egrpo.events, egrpo.cli;"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_rewards_are_told_apart_by_their_type() -> None:
    rewards = {
        "components": [{"type": "shapes", "quality": 3}, {"type": "compressibility", "quality": 0}, {"type": "beauty"}],
        "held_out": [{"weight": 1}, {"type": "diversity"}, {"type": "diversity"}, "shapes"],
    }
    lines = refusal(changed(reward=rewards)).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "/reward/components/0/quality",
        "/reward/components/1/quality",
        "/reward/components/2/type",
        "/reward/held_out/0/type",
        "/reward/held_out/3",
    ]
    assert "Extra inputs are not permitted" in lines[0]
    assert "allowed: >= 1" in lines[1]
    assert lines[2].endswith("(got 'beauty'); allowed: 'shapes', 'compressibility', 'incompressibility', 'diversity'")
    assert "Field required" in lines[3]
    twice = refusal(changed(reward={"components": [{"type": "shapes"}, {"type": "shapes"}]}))
    assert twice.startswith("/reward/components: reward type 'shapes' is named twice; allowed: once")


def test_a_reward_of_groups_needs_groups() -> None:
    rewards = {"components": [{"type": "shapes"}], "held_out": [{"type": "diversity"}]}
    parse_spec(changed(reward=rewards))
    message = refusal(changed(reward=rewards, evaluation={"images_per_prompt": 1}))
    assert message.startswith("/evaluation/images_per_prompt: reward diversity compares the images of a prompt")
