"""The warning of reward hacking: on recorded evaluations, by chance, and in a run that earns it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from egrpo_runs import Redness, short_spec
from torch import Tensor

from egrpo import hacking
from egrpo.events import EventWriter
from egrpo.rewards import FloatArray, RewardBatch
from egrpo.scoring import WeightedReward
from egrpo.state import CurvePoint, History, RecordedEvaluation, history_from_json, history_to_json
from egrpo.train import train

RNG = np.random.default_rng(0)
TRAINED, HELD_OUT = RNG.normal(0.5, 0.1, (10, 4)), RNG.normal(0.5, 0.1, (10, 4))


def evaluations(
    trained: Sequence[float], held_out: Sequence[float], noise: float = 0.01, prompts: int = 10
) -> list[RecordedEvaluation]:
    """Recorded evaluations whose mean rewards have these offsets."""

    def images(scores: FloatArray, offset: float) -> list[list[float]]:
        found: list[list[float]] = (scores[:prompts] + offset + RNG.normal(0, noise, scores[:prompts].shape)).tolist()
        return found

    return [
        RecordedEvaluation(5 * n, {"reward": images(TRAINED, up), "reward/held_out_other": images(HELD_OUT, down)})
        for n, (up, down) in enumerate(zip(trained, held_out, strict=True))
    ]


def stretches_and_messages(found: list[RecordedEvaluation]) -> tuple[list[tuple[int, int, int]], list[str]]:
    """What a run with these evaluations would keep and say; only as many are looked at as a run keeps."""
    stretches, messages = [], []
    for count in range(1, len(found) + 1):
        stretches, told = hacking.extended(stretches, found[max(0, count - 1 - hacking.WINDOW) : count])
        messages += told
    kept = [(s["first_step"], s["compared_with_step"], s["last_step"]) for s in stretches]
    return kept, messages


def test_one_warning_for_each_stretch() -> None:
    trained = [0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.5, 0.6]
    held_out = [0, 0, -0.1, -0.2, -0.2, -0.2, -0.2, -0.2, -0.2, -0.3]
    stretches, messages = stretches_and_messages(evaluations(trained, held_out))
    # Up to step 25 three evaluations back the trained reward was lower and the held-out one higher; again at the end.
    assert stretches == [(10, 10, 25), (45, 30, 45)]
    assert len(messages) == 2
    assert messages[0].startswith("reward hacking: from step 0 to 10 the trained reward rose by +0.")
    assert "while held_out_other fell by -0." in messages[0]


@pytest.mark.parametrize(
    ("trained", "held_out"),
    [
        ([0, 0.1, 0.2, 0.3], [0, 0.1, 0.1, 0.2]),
        ([0, 0.1, 0.2, 0.3], [0, 0, 0, 0]),
        ([0, 0, 0, 0], [0, -0.1, -0.2, -0.3]),
        ([0, -0.1, -0.2, -0.3], [0, -0.1, -0.2, -0.3]),
        ([0, 0.1, 0.2, 0.3], [0, -0.001, -0.002, -0.003]),  # certain, and too little to speak of
    ],
)
def test_no_warning(trained: list[float], held_out: list[float]) -> None:
    assert stretches_and_messages(evaluations(trained, held_out, noise=1e-5)) == ([], [])


def test_seven_prompts_tell_nothing() -> None:
    falling = [0, -0.1, -0.2]
    assert stretches_and_messages(evaluations([0, 0.1, 0.2], falling, prompts=7)) == ([], [])
    assert len(stretches_and_messages(evaluations([0, 0.1, 0.2], falling, prompts=8))[1]) == 1
    assert hacking.has_enough_units(1, 8)
    assert not hacking.has_enough_units(1, 7)
    assert not hacking.has_enough_units(2, 64)


def test_a_held_out_reward_that_only_wavers_is_seldom_blamed() -> None:
    """With eight prompts and a trained reward that does rise: 3.3 % of 1500 comparisons (1.4 % with sixteen)."""
    wrong = 0
    for _ in range(120):
        found = evaluations([0, 0.2], [0, 0], noise=0.1, prompts=8)
        wrong += bool(hacking.diverging(found))
    assert wrong <= 10  # 4 are expected


def test_a_stretch_goes_on_after_a_resume() -> None:
    found = evaluations([0, 0.1, 0.2], [0, -0.1, -0.2])
    history = History([CurvePoint(0, 0.5, 0.0, {"other": 0.5})], recent=found[:2])
    history.hacking, told = hacking.extended([], history.recent)
    assert len(told) == 1
    resumed = history_from_json(json.loads(json.dumps(history_to_json(history))))
    assert resumed == history
    stretches, told = hacking.extended(resumed.hacking, [*resumed.recent, found[2]])
    assert [(s["first_step"], s["last_step"]) for s in stretches] == [(5, 10)]
    assert told == []


class Blueness(Redness):
    """What is lost when images become redder."""

    name = "blueness"

    def __call__(self, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
        """Scores a batch."""
        found = super().__call__(images_BCHW, prompts)
        return RewardBatch(1 - found.scores, found.passed)


def test_a_run_that_hacks_its_reward_says_so(
    random_flux: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Images become redder; blueness is held out. The run goes on, warned once, and the report keeps the stretch."""
    prompts = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("circle", "square", "star")]
    spec = short_spec(
        random_flux,
        training={
            "steps": 16,
            "prompts_per_update": 4,
            "learning_rate": 1e-2,
            "lora": {"rank": 4, "alpha": 8, "targets": "all"},
        },
        method={"group_size": 6},
        evaluation={"every_steps": 8, "images_per_prompt": 4, "prompts": {"inline": prompts}},
        checkpoint={"every_steps": 16},
    )
    rewards = [WeightedReward(Redness(), 1.0), WeightedReward(Blueness(), 0.0)]
    events_to_stdout = EventWriter(tmp_path / "run", 1)
    report = json.loads(train(spec, tmp_path / "run", rewards=rewards, events=events_to_stdout).read_text())
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    warnings = [event["message"] for event in events if event["type"] == "log" and event["level"] == "warning"]
    assert len([message for message in warnings if message.startswith("reward hacking: ")]) == 1
    (stretch,) = report["reward_hacking"]
    assert (stretch["held_out"], stretch["last_step"]) == ("held_out_blueness", 16)
    assert stretch["reward_ci99"][0] > 0 > stretch["held_out_ci99"][1]
    assert report["rewards"]["held_out_blueness"]["paired_delta"] == pytest.approx(-report["paired_delta"])
