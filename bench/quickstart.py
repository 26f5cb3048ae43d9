"""Runs the example job with several seeds and shows whether it keeps its promises: a table, and the curves.

    python bench/quickstart.py --seeds 1 2 3                     through the service, as `make run` does
    python bench/quickstart.py --reports out/bench/seed-*/report.json        only the table and the picture

Writes `docs/quickstart-results.md` and `docs/quickstart-curves.png`. Prints and draws; fails on nothing.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
# What the README promises of every seed: points of strict accuracy, evaluation reward, the lower end of its paired
# interval, the distance of the last evaluation from the best, images, minutes.
LIMITS = {"strict": 0.10, "reward": 0.06, "interval": 0.03, "last": 0.02, "images": 192, "seconds": 600}
WALL = "wall_seconds.txt"
HEAD = (
    "| seed | strict accuracy | points | eval reward | change | 95 % interval | below best | images | time | holds |\n"
    "|---:|---|---:|---|---:|---|---:|---:|---:|---|\n"
)


def main() -> None:
    """Runs the seeds that have no report yet, then writes table and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "quickstart.yaml")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "bench")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--reports", type=Path, nargs="+", help="reports of earlier runs, instead of new runs")
    options = parser.parse_args()
    paths = options.reports or [run(options.spec, options.output / f"seed-{seed}", seed) for seed in options.seeds]
    reports = [read(path) for path in paths]
    text = results_page(reports)
    options.docs.mkdir(exist_ok=True)
    (options.docs / "quickstart-results.md").write_text(text)
    draw_curves(reports, options.docs / "quickstart-curves.png")
    print(text)


def run(spec: Path, output: Path, seed: int) -> Path:
    """Runs the example through the local stack and returns the path of its report."""
    command = [sys.executable, "-m", "egrpo_client.cli", "quickstart", "--spec", str(spec), "--output", str(output)]
    started_at = time.monotonic()
    subprocess.run([*command, "--seed", str(seed)], check=True, cwd=ROOT)
    (output / WALL).write_text(f"{time.monotonic() - started_at:.1f}\n")
    return output / "report.json"


def read(path: Path) -> dict[str, Any]:
    """Returns a report; its seconds are those of the whole command where that was measured."""
    report: dict[str, Any] = json.loads(path.read_text())
    wall = path.with_name(WALL)
    return {**report, "seconds": float(wall.read_text())} if wall.exists() else report


def row(report: dict[str, Any]) -> str:
    """Returns the table row of one report."""
    strict = report["strict_accuracy_before"], report["strict_accuracy_after"]
    reward = report["eval_reward_before"], report["eval_reward_after"]
    low, high = report["paired_delta_ci95"]
    cells = [
        str(report["seed"]),
        f"{strict[0]:.1%} → {strict[1]:.1%}",
        f"{100 * (strict[1] - strict[0]):+.1f}",
        f"{reward[0]:.3f} → {reward[1]:.3f}",
        f"{reward[1] - reward[0]:+.3f}",
        f"{low:+.3f} … {high:+.3f}",
        f"{report['eval_reward_best'] - reward[1]:.3f}",
        str(report["num_images"]),
        f"{report['seconds']:.0f} s",
        "yes" if holds(report) else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def holds(report: dict[str, Any]) -> bool:
    """Returns whether the run kept every promise."""
    return bool(
        report["strict_accuracy_after"] - report["strict_accuracy_before"] >= LIMITS["strict"]
        and report["eval_reward_after"] - report["eval_reward_before"] >= LIMITS["reward"]
        and report["paired_delta_ci95"][0] > LIMITS["interval"]
        and report["eval_reward_best"] - report["eval_reward_after"] <= LIMITS["last"]
        and report["num_images"] >= LIMITS["images"]
        and report["seconds"] <= LIMITS["seconds"]
    )


def results_page(reports: Sequence[dict[str, Any]]) -> str:
    """Returns the page with the table and how it was made."""
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    digests = ", ".join(sorted({str(report.get("spec_digest", ""))[:12] for report in reports}))
    rows = "\n".join(row(report) for report in reports)
    return (
        "# The example job with several seeds\n\n"
        "Made by `python bench/quickstart.py` from the reports of the runs; held-out prompts, fixed evaluation seeds,\n"
        "plain ODE sampling. The interval is that of the paired difference, the time that of the whole command.\n\n"
        f"{HEAD}{rows}\n\n"
        f"A run holds when strict accuracy rises by at least {100 * LIMITS['strict']:.0f} points, the evaluation\n"
        f"reward by at least {LIMITS['reward']} with the interval above {LIMITS['interval']}, on at least\n"
        f"{LIMITS['images']} images, within {LIMITS['seconds'] / 60:.0f} minutes, and the last evaluation is within\n"
        f"{LIMITS['last']} of the best.\n\n"
        f"![curves](quickstart-curves.png)\n\n"
        f"Machine: {machine}. Spec digests: {digests}.\n"
    )


def draw_curves(reports: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws evaluation reward and strict accuracy over optimizer steps, one line a seed."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for axes, key, title in zip(
        panels, ("eval_reward", "strict_accuracy"), ("evaluation reward", "strict accuracy"), strict=True
    ):
        for report in reports:
            curve = report["curve"]
            axes.plot([point["step"] for point in curve], [point[key] for point in curve], "o-", label=report["seed"])
        axes.set(title=title, xlabel="optimizer step")
        axes.grid(alpha=0.3)
    panels[0].legend(title="seed")
    figure.savefig(path)


if __name__ == "__main__":
    main()
