"""What a finished run shows: `report.json`, the before/after contact sheet and the reward curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from egrpo.config import TrainSpec
from egrpo.evaluate import paired_interval
from egrpo.state import CurvePoint, History

REPORT, CONTACT_SHEET, REWARD_CURVE = "report.json", "contact_sheet.png", "reward_curve.png"
_CELL, _GAP, _CAPTION = 144, 12, 40


def build_report(spec: TrainSpec, prompts: Sequence[str], history: History, model_digest: str | None) -> dict[str, Any]:
    """Returns the report of a run whose history has a first and a last evaluation."""
    before, after = np.array(history.before["reward"]), np.array(history.latest["reward"])
    strict_before, strict_after = np.array(history.before["passed"]), np.array(history.latest["passed"])
    low, high = paired_interval(before, after)
    return {
        "eval_reward_before": float(before.mean()),
        "eval_reward_after": float(after.mean()),
        "strict_accuracy_before": float(strict_before.mean()),
        "strict_accuracy_after": float(strict_after.mean()),
        "eval_reward_best": max(point.eval_reward for point in history.curve),
        "paired_delta": float((after - before).mean()),
        "paired_delta_ci95": [low, high],
        "rewards": _by_reward(history),
        "reward_hacking": history.hacking,
        "num_images": int(before.size),
        "seconds": round(history.seconds, 2),
        "training_seconds": round(history.training_seconds, 2),
        "seed": spec.training.seed,
        "steps": spec.training.steps,
        "curve": [vars(point) for point in history.curve],
        "rows": [
            {
                "prompt": prompt,
                "reward_before": float(before[p].mean()),
                "reward_after": float(after[p].mean()),
                "strict_before": float(strict_before[p].mean()),
                "strict_after": float(strict_after[p].mean()),
            }
            for p, prompt in enumerate(prompts)
        ],
        "spec": spec.model_dump(mode="json"),
        "spec_digest": spec.digest(),
        "model_digest": model_digest,
    }


def _by_reward(history: History) -> dict[str, Any]:
    """Returns before, after and their paired difference of every reward by label, held-out ones too."""
    found = {}
    for name in history.latest:
        if name.startswith("reward/") and name in history.before:
            before, after = np.array(history.before[name]), np.array(history.latest[name])
            found[name.removeprefix("reward/")] = {
                "before": float(before.mean()),
                "after": float(after.mean()),
                "paired_delta": float((after - before).mean()),
                "paired_delta_ci95": list(paired_interval(before, after)),
            }
    return found


def write_report(report: dict[str, Any], run: Path) -> None:
    """Writes `report.json`."""
    (run / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def draw_contact_sheet(
    before_SCHW: Tensor, after_SCHW: Tensor, captions: Sequence[str], columns: int, path: Path
) -> None:
    """Draws pairs of the same prompt and seed, before on the left and after on the right, captions below."""
    cell_width, cell_height = 2 * _CELL + 4 + _GAP, _CELL + _CAPTION + _GAP
    rows = -(-len(captions) // columns)
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP + 20), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((_GAP, 8), "left: base model   right: aligned   same prompt and seed, plain ODE", "black", font)
    for index, caption in enumerate(captions):
        left = _GAP + (index % columns) * cell_width
        top = 20 + _GAP + (index // columns) * cell_height
        sheet.paste(_thumbnail(before_SCHW[index]), (left, top))
        sheet.paste(_thumbnail(after_SCHW[index]), (left + _CELL + 4, top))
        draw.multiline_text((left, top + _CELL + 3), _wrapped(caption, 46), "black", font, spacing=1)
    sheet.save(path)


def _thumbnail(image_CHW: Tensor) -> Image.Image:
    image = Image.fromarray((image_CHW.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    enlarged = image.width < _CELL
    return image.resize((_CELL, _CELL), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def _wrapped(text: str, width: int) -> str:
    first, rest = text[:width], text[width:]
    if rest and " " in first:
        cut = first.rindex(" ")
        first, rest = text[:cut], text[cut + 1 :]
    return first if not rest else f"{first}\n{rest if len(rest) <= width else rest[: width - 1] + '…'}"


def draw_reward_curve(
    curve: Sequence[CurvePoint], training: Mapping[str, Sequence[tuple[int, float]]], path: Path
) -> None:
    """Draws the evaluations over optimizer steps: reward and strict accuracy, and below every reward by itself.

    `training` holds the curves of training by metric name: `reward_mean` and `reward/<label>/mean` are drawn behind.
    """
    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    labels = list(curve[0].rewards)
    rows = 1 + (len(labels) > 1)  # a single reward is the reward
    figure = Figure(figsize=(7, 4 * rows), dpi=130, layout="constrained")
    panels = figure.subplots(rows, squeeze=False)[:, 0]
    steps = [point.step for point in curve]
    _draw_behind(panels[0], training.get("reward_mean", ()), "0.8", "training reward")
    panels[0].plot(steps, [point.eval_reward for point in curve], "o-", color="#1f77b4", label="evaluation reward")
    panels[0].plot(steps, [point.strict_accuracy for point in curve], "s--", color="#d62728", label="strict accuracy")
    for index, label in enumerate(labels if rows > 1 else ()):
        colour = f"C{index}"
        _draw_behind(panels[1], training.get(f"reward/{label}/mean", ()), colour)
        line = "o:" if label.startswith("held_out_") else "o-"
        panels[1].plot(steps, [point.rewards.get(label) for point in curve], line, color=colour, label=label)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.legend()
    panels[-1].set_xlabel("optimizer step")
    figure.savefig(path)


def _draw_behind(axes: Any, points: Sequence[tuple[int, float]], colour: str, label: str | None = None) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1, alpha=0.5 if label is None else 1, label=label)
