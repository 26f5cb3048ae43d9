"""A whole run in this process: what it leaves, what it says, how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from egrpo_runs import PROMPTS, Constant, Redness, short_spec, stop_after
from PIL import Image
from safetensors.torch import load_file

from egrpo import checkpoint
from egrpo.ema import EMA
from egrpo.errors import ConfigError, NonFiniteError, RewardError, StopRequested
from egrpo.evaluate import paired_interval
from egrpo.events import EventWriter
from egrpo.rewards import RewardBatch
from egrpo.scoring import WeightedReward
from egrpo.state import Draws
from egrpo.train import train

REWARDS = [WeightedReward(Redness(), 1.0), WeightedReward(Constant(), 0.0)]


def run_with_events(spec: Any, output: Path, **arguments: Any) -> list[dict[str, Any]]:
    """Trains with a pipe for the events, and returns them."""
    path = output.with_suffix(".events")
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        train(spec, output, events=EventWriter(output, descriptor), rewards=REWARDS, **arguments)
    finally:
        os.close(descriptor)
        events = [json.loads(line) for line in path.read_text().splitlines()]
    return events


@pytest.fixture(scope="module")
def finished(random_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    output = tmp_path_factory.mktemp("runs") / "finished"
    spec = short_spec(random_flux, training={"ema_decay": 0.5}, height=48, width=32)
    return output, run_with_events(spec, output)


def test_a_run_leaves_everything(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    run, _ = finished
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "spec.json",
        "plan.json",
        "metrics.ndjson",
        "report.json",
        "contact_sheet.png",
        "reward_curve.png",
        "adapter/pytorch_lora_weights.safetensors",
        "samples/step-000000/001.png",
        "samples/step-000004/000.png",
        "checkpoints/step-000004/manifest.json",
    } <= names
    assert not any(name.endswith((".pt", ".pkl", ".bin")) for name in names)


def test_the_report(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    report = json.loads((finished[0] / "report.json").read_text())
    assert [point["step"] for point in report["curve"]] == [0, 2, 4]
    assert report["curve"][0]["eval_reward"] == report["eval_reward_before"]
    assert report["curve"][-1]["eval_reward"] == report["eval_reward_after"]
    assert report["eval_reward_best"] == max(point["eval_reward"] for point in report["curve"])
    assert len(report["rows"]) == 2
    assert np.mean([row["reward_after"] for row in report["rows"]]) == pytest.approx(report["eval_reward_after"])
    low, high = report["paired_delta_ci95"]
    assert low <= report["paired_delta"] <= high
    assert report["steps"] == 4
    assert report["seed"] == 42
    assert 0 < report["training_seconds"] <= report["seconds"]
    assert report["spec"]["training"]["ema_decay"] == 0.5
    assert len(report["model_digest"]) == 64
    assert list(report["rewards"]) == ["redness", "held_out_constant"]
    redness = report["rewards"]["redness"]
    assert (redness["before"], redness["after"]) == (report["eval_reward_before"], report["eval_reward_after"])
    assert redness["paired_delta_ci95"] == report["paired_delta_ci95"]
    assert report["rewards"]["held_out_constant"]["after"] == 0.25
    assert report["curve"][1]["rewards"]["held_out_constant"] == 0.25
    assert report["reward_hacking"] == []


def test_metrics_of_every_step(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    rows = [json.loads(line) for line in (finished[0] / "metrics.ndjson").read_text().splitlines()]
    training = [row for row in rows if "loss" in row["values"]]
    assert [row["step"] for row in training] == [1, 2, 3, 4]
    values = training[0]["values"]
    assert {
        "reward_mean", "reward_std", "reward_best", "reward_worst", "passed_fraction", "anchor_reward", "clip_fraction",
        "ratio_deviation", "grad_norm", "learning_rate", "zero_variance_groups", "images_per_second",
        "network_evaluations", "seconds",
    } <= set(values)  # fmt: skip
    assert values["ratio_deviation"] == 0
    assert values["grad_norm"] > 0
    plan = json.loads((finished[0] / "plan.json").read_text())
    tails = sum(6 - step["start"] - step["length"] for step in plan["steps"])
    assert values["network_evaluations"] == 2 * (6 + 3 * tails)
    evaluations = [row for row in rows if "eval_reward" in row["values"]]
    assert [row["step"] for row in evaluations] == [0, 2, 4]
    assert evaluations[0]["values"]["eval_held_out_constant"] == 0.25
    assert "eval_redness_green" in evaluations[0]["values"]
    assert values["reward/redness/mean"] == values["reward_mean"]
    assert values["reward/redness/best"] > values["reward/redness/worst"]


def test_the_best_and_the_worst_of_an_evaluation_are_kept(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    run, events = finished
    samples = [event for event in events if event["type"] == "sample" and event["step"] == 4]
    scores = {kind: [e["rewards"]["redness"] for e in samples if e["kind"] == kind] for kind in ("best", "worst")}
    assert scores["best"] == sorted(scores["best"], reverse=True)
    assert scores["worst"] == sorted(scores["worst"])
    assert min(scores["best"]) >= max(scores["worst"])
    assert np.mean(scores["best"] + scores["worst"]) == pytest.approx(
        json.loads((run / "report.json").read_text())["eval_reward_after"]
    )
    grid = {event["seed"]: event for event in samples if event["kind"] == "evaluation"}
    again = [event for event in samples if event["kind"] != "evaluation" and event["seed"] in grid]
    assert len(again) == 2
    assert [event["prompt_index"] for event in grid.values()] == [0, 1]
    for event in again:
        assert (event["prompt"], event["prompt_index"]) == tuple(
            grid[event["seed"]][name] for name in ("prompt", "prompt_index")
        )
        pictures = [np.asarray(Image.open(run / e["path"])).astype(int) for e in (event, grid[event["seed"]])]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_every_metric_is_documented(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = [name for cell in cells for name in re.findall("`([^`]+)`", cell)]
    parts = {"<reward>": "(redness|held_out_constant)", "<detail>": "green", "<step>": "[0-9]+"}
    patterns = "|".join(re.sub("<[a-z]+>", lambda match: parts[match[0]], name) for name in named)
    published = {name for event in finished[1] if event["type"] == "metric" for name in event["values"]}
    assert not [name for name in published if not re.fullmatch(patterns, name)]


def test_the_events_follow_the_protocol(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    run, events = finished
    kinds = {event["type"] for event in events}
    assert kinds == {"phase", "progress", "metric", "sample", "checkpoint", "artifact", "log"}
    assert events[0] == {"type": "phase", "phase": "loading_model"}
    assert events[-1] == {"type": "phase", "phase": "done"}
    progress = [event for event in events if event["type"] == "progress"]
    assert [event["step"] for event in progress] == [1, 2, 3, 4]
    assert progress[-1]["eta_seconds"] == 0
    states = [event for event in events if event["type"] == "checkpoint" and event["kind"] == "state"]
    assert [event["step"] for event in states] == [2, 4]
    for event in [*states, *(e for e in events if e["type"] == "checkpoint" and e["kind"] == "adapter")]:
        assert all((run / event["path"] / file["path"]).stat().st_size == file["size_bytes"] for file in event["files"])
    samples = [event for event in events if event["type"] == "sample"]
    assert all((run / event["path"]).exists() for event in samples)
    kinds_of_step = [event["kind"] for event in samples if event["step"] == 4]
    assert kinds_of_step == ["evaluation"] * 2 + ["best"] * 2 + ["worst"] * 2
    assert len(samples) == 3 * 6
    assert samples[0]["seed"] == 1234
    assert samples[1]["seed"] == 1236
    assert [e["path"] for e in events if e["type"] == "artifact"] == [
        "report.json",
        "contact_sheet.png",
        "reward_curve.png",
    ]


@pytest.mark.parametrize("kind", ["evaluation", "best", "worst"])
def test_the_exported_average_draws_the_published_sample(
    finished: tuple[Path, list[dict[str, Any]]], random_flux: Path, kind: str
) -> None:
    """The last evaluation's image, drawn again by stock diffusers from the exported adapter."""
    run, events = finished
    sample = [event for event in events if event["type"] == "sample" and event["kind"] == kind][-2]
    pipeline = FluxPipeline.from_pretrained(random_flux, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(run / "adapter"), weight_name="pytorch_lora_weights.safetensors")
    plan = json.loads((run / "plan.json").read_text())
    pipeline.scheduler.set_timesteps = _fixed_sigmas(pipeline.scheduler, plan["sigmas"])
    image = pipeline(
        sample["prompt"],
        height=48,
        width=32,
        num_inference_steps=6,
        max_sequence_length=12,
        generator=torch.Generator().manual_seed(sample["seed"]),
        output_type="np",
    ).images[0]
    kept = np.asarray(Image.open(run / sample["path"])).astype(np.float64)
    assert np.abs(kept - image * 255).max() < 0.6


def test_what_is_exported_is_the_average(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    run, _ = finished
    last = checkpoint.read(run / "checkpoints" / "step-000004")
    exported = load_file(run / "adapter" / "pytorch_lora_weights.safetensors")
    average, trained = last.tensors("ema"), last.tensors("adapter")
    assert len(exported) == len(average)
    for name, tensor in average.items():
        assert torch.equal(exported[f"transformer.{name}".replace(".default", "")], tensor)
    assert any(not torch.equal(average[name], trained[name]) for name in trained)


def test_the_average_by_hand() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    ema = EMA([("p", parameter)], decay=0.75)
    for value in (5.0, 9.0):
        parameter.data = torch.full((2,), value)
        ema.update()
    expected = [0.75 * (0.75 * first + 0.25 * 5) + 0.25 * 9 for first in (1, 2)]
    assert ema.tensors()["p"].tolist() == pytest.approx(expected)
    with ema.applied():
        assert parameter.tolist() == pytest.approx(expected)
    assert parameter.tolist() == [9, 9]


def test_resuming_a_finished_run_leaves_the_same_report(random_flux: Path, tmp_path: Path) -> None:
    first = json.loads(train(short_spec(random_flux), tmp_path / "run", rewards=REWARDS).read_text())
    shutil.rmtree(tmp_path / "run" / "samples")
    again = json.loads(train(short_spec(random_flux), tmp_path / "run", rewards=REWARDS, resume=True).read_text())
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def _fixed_sigmas(scheduler: Any, sigmas: list[float]) -> Any:
    def set_timesteps(*_: object, sigmas: object = None, **__: object) -> None:
        scheduler.sigmas = torch.tensor(fixed)
        scheduler.timesteps = scheduler.sigmas[:-1] * 1000
        scheduler._step_index = scheduler._begin_index = None

    fixed = sigmas
    return set_timesteps


def test_the_reward_rises(random_flux: Path, tmp_path: Path) -> None:
    """Thirty updates on the random model make images redder, on prompts that were not trained on."""
    lora = {"rank": 4, "alpha": 8, "targets": "all"}
    spec = short_spec(
        random_flux,
        training={"steps": 30, "prompts_per_update": 4, "learning_rate": 1e-2, "lr_schedule": "linear", "lora": lora},
        method={"group_size": 6},
        evaluation={"every_steps": 30, "images_per_prompt": 8},
        checkpoint={"every_steps": 30},
    )
    report = json.loads(train(spec, tmp_path / "run", rewards=REWARDS[:1]).read_text())
    assert report["paired_delta_ci95"][0] > 0


def test_several_rewards_of_a_spec(random_flux: Path, tmp_path: Path) -> None:
    """Rewards that look at images and at groups, trained and held out, loaded by their names in the spec."""
    components = [{"type": "compressibility", "weight": 3.0, "quality": 50}, {"type": "diversity", "grid": 4}]
    rewards = {"components": components, "held_out": [{"type": "shapes"}, {"type": "diversity"}]}
    first_steps = {}
    for combine in ("gdpo", "weighted_sum"):
        spec = short_spec(
            random_flux, reward={**rewards, "combine": combine}, training={"steps": 1}, height=64, width=64
        )
        report = json.loads(train(spec, tmp_path / combine).read_text())
        rows = [json.loads(line)["values"] for line in (tmp_path / combine / "metrics.ndjson").read_text().splitlines()]
        (first_steps[combine],) = (row for row in rows if "loss" in row)
    assert list(report["rewards"]) == ["compressibility", "diversity", "held_out_shapes", "held_out_diversity"]
    evaluation, step = rows[0], first_steps["gdpo"]
    assert step["grad_norm"] > 0
    assert step["reward/diversity/worst"] > 0
    means = [step[f"reward/{name}/mean"] for name in ("compressibility", "diversity")]
    assert step["reward_mean"] == pytest.approx((3 * means[0] + means[1]) / 4)
    assert 0 < step["anchor_reward"] < 1  # of the anchors' JPEGs alone: they are in no group
    assert evaluation["eval_held_out_diversity"] > evaluation["eval_diversity"] > 0  # a finer grid averages less away
    same = {name for name in step if step[name] == first_steps["weighted_sum"][name]}
    assert {"reward_mean", "reward/diversity/std", "zero_variance_groups"} <= same
    assert not {"advantage_abs_mean", "grad_norm"} & same


def test_flat_groups_are_counted_and_change_nothing(random_flux: Path, tmp_path: Path) -> None:
    spec = short_spec(random_flux, training={"weight_decay": 0, "startup_checks": "warn"})
    train(spec, tmp_path / "run", rewards=[WeightedReward(Constant(), 1.0)])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.ndjson").read_text().splitlines()]
    training = [row["values"] for row in rows if "loss" in row["values"]]
    assert {(values["zero_variance_groups"], values["grad_norm"], values["loss"]) for values in training} == {(6, 0, 0)}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["eval_reward_before"] == report["eval_reward_after"]


class Breaking(Redness):
    """Breaks in one of several ways."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, images_BCHW: torch.Tensor, prompts: Any) -> RewardBatch:
        if self.how == "raises":
            raise KeyError("weights")
        scores = np.zeros(len(prompts) - (self.how == "short"))
        if self.how == "nan":
            scores[1] = np.nan
        return RewardBatch(scores, np.zeros(len(prompts), dtype=bool))


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("raises", RewardError, "reward 'redness' failed on 4 images: KeyError"),
        ("short", RewardError, r"returned scores of shape \(3,\), expected \(4,\)"),
        ("nan", NonFiniteError, "reward 'redness' returned nan for the prompt 'a "),
    ],
)
def test_a_reward_that_breaks_is_named(
    random_flux: Path, tmp_path: Path, how: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        train(short_spec(random_flux), tmp_path / "run", rewards=[WeightedReward(Breaking(how), 1.0)])


def test_a_folder_with_a_run_is_not_written_over(random_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(StopRequested):
        train(short_spec(random_flux), tmp_path, rewards=REWARDS, check_stop=stop_after(30))
    with pytest.raises(ConfigError, match="already holds a run; pass --resume"):
        train(short_spec(random_flux), tmp_path, rewards=REWARDS)
    with pytest.raises(ConfigError, match="written by another spec"):
        train(short_spec(random_flux, training={"steps": 5}), tmp_path, rewards=REWARDS, resume=True)


def test_prompts_come_in_shuffled_epochs() -> None:
    draws = Draws(0, len(PROMPTS))
    epochs = [sorted(draws.prompts(4) + draws.prompts(2)) for _ in range(5)]
    assert epochs == [list(range(6))] * 5
    assert sorted(Draws(0, 3).prompts(9)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_interval_is_of_prompts_not_of_images() -> None:
    before = np.zeros((50, 16))
    after = np.repeat(np.random.default_rng(0).normal(0.1, 0.2, (50, 1)), 16, axis=1)
    low, high = paired_interval(before, after)
    width = 2 * 1.96 * after[:, 0].std() / np.sqrt(50)
    assert high - low == pytest.approx(width, rel=0.1)
    assert paired_interval(before[:1], after[:1] + 1) == (
        pytest.approx(after[0, 0] + 1),
        pytest.approx(after[0, 0] + 1),
    )
