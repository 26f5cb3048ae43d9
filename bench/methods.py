"""Trains every method on the example job, shortened, in one run on one machine: what each reaches and what it costs.

    python bench/methods.py --steps 40

Same prompts, seeds, group size, optimizer and number of updates; what differs is the plan. Writes docs/methods.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMMON = {"sampling_steps": 8, "group_size": 8}
METHODS: dict[str, dict[str, Any]] = {
    "egrpo": {"active_steps_per_update": 1},
    "egrpo, nothing merged": {"active_steps_per_update": 1, "merging": "none"},
    "egrpo, cps": {"active_steps_per_update": 1, "kernel": "cps"},
    "g2rpo": {"type": "g2rpo", "active_steps_per_update": 1},
    "dance_grpo": {"type": "dance_grpo"},
    "flow_grpo": {"type": "flow_grpo"},
    "flow_grpo_fast": {"type": "flow_grpo_fast"},
    "mix_grpo": {"type": "mix_grpo", "window_size": 2, "updates_per_window": 8},
}


def main() -> None:
    """Trains one after the other and writes the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=8, help="evaluation images per prompt")
    options = parser.parse_args()
    rows = []
    for name, method in METHODS.items():
        rows.append(f"| {name} | {' | '.join(run(method, options))} |")
        print(rows[-1], flush=True)
        write(rows, options)


def run(method: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """Trains by the bare trainer and returns the cells of a row."""
    spec = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    spec["method"] = {**COMMON, **method}
    spec["training"] |= {"steps": options.steps, "seed": options.seed}
    spec["evaluation"] |= {"every_steps": options.steps, "images_per_prompt": options.images}
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder) / "spec.yaml", Path(folder) / "run"
        path.write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-m", "egrpo", "train", str(path), "--output", str(output)]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report = json.loads((output / "report.json").read_text())
        metrics = [json.loads(line)["values"] for line in (output / "metrics.ndjson").read_text().splitlines()]
    evaluations = sum(row.get("network_evaluations", 0) + row.get("update_evaluations", 0) for row in metrics)
    low, high = report["paired_delta_ci95"]
    return [
        f"{report['eval_reward_before']:.3f} → {report['eval_reward_after']:.3f}",
        f"{report['paired_delta']:+.3f} ({low:+.3f} … {high:+.3f})",
        f"{report['strict_accuracy_before']:.1%} → {report['strict_accuracy_after']:.1%}",
        f"{evaluations / options.steps:.0f}",
    ]


def write(rows: list[str], options: argparse.Namespace) -> None:
    """Writes the page with the rows so far."""
    head = "| method | eval reward | change (95 % interval) | strict accuracy | network evaluations per update |"
    text = f"""# The methods on the example job

Made by `python bench/methods.py --steps {options.steps}`: the example job with {options.steps} updates, seed
{options.seed}, held-out prompts, plain ODE evaluation, bare trainer. One seed and a short run say that every method
trains, not which is best: differences between rows are within what seeds do.

{head}
|---|---|---|---|---:|
"""
    (ROOT / "docs" / "methods.md").write_text(text + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
