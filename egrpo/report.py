"""What a finished run shows: `report.json`, the before/after contact sheet and the reward curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def draw_reward_curve(curve: Sequence[CurvePoint], training: Sequence[tuple[int, float]], path: Path) -> None:
    """Draws evaluation reward and strict accuracy over optimizer steps, with the training reward behind them."""
    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), color="0.8", linewidth=1, label="training reward")
    steps = [point.step for point in curve]
    axes.plot(steps, [point.eval_reward for point in curve], "o-", color="#1f77b4", label="evaluation reward")
    axes.plot(steps, [point.strict_accuracy for point in curve], "s--", color="#d62728", label="strict accuracy")
    axes.set_xlabel("optimizer step")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
