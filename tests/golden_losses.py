"""The first updates of every method on tiny-flux-shapes, as numbers.

`python tests/golden_losses.py` writes tests/golden/losses.json anew: after a change that is meant to move them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from egrpo.config import parse_spec
from egrpo.methods import METHODS
from egrpo.train import train

PATH = Path(__file__).parent / "golden" / "losses.json"
NAMES = ("loss", "kl", "grad_norm", "reward_mean", "reward_std", "ratio_deviation", "network_evaluations")
# Of several the model draws about every second one right, so that rewards differ within groups.
PROMPTS = ["a red star above a blue square", "a yellow triangle left of a green circle"]
_OWN: dict[str, dict[str, Any]] = {
    "egrpo": {"active_steps": [0, 1]},
    "g2rpo": {"active_steps": [0, 1]},
    "flow_grpo_fast": {"window_size": 1},
    "mix_grpo": {"window_size": 2, "updates_per_window": 1},
}


def first_updates(method: str, folder: Path, **training: Any) -> list[dict[str, float]]:
    """Returns what three optimizer steps measured: two on one rollout, then one on the next; by one thread.

    `training` changes settings, to measure what should not matter.
    """
    spec = parse_spec(
        {
            "base_model": "tiny-flux-shapes",
            "prompts": {"inline": PROMPTS},
            "reward": {"components": [{"type": "shapes"}]},
            "method": {
                "type": method, "sampling_steps": 4, "shift": 3.0, "group_size": 3, "dispersion_limit": 10,
                **_OWN.get(method, {}),
            },
            "training": {
                "steps": 3, "prompts_per_update": 2, "updates_per_rollout": 2, "learning_rate": 2e-3, "kl_weight": 0.1,
                "clip_range": 0.5, "precision": "float32", "lora": {"rank": 4, "alpha": 8}, "startup_checks": "warn",
                "advantage_std_floor": 0.05, **training,
            },
            "evaluation": {"every_steps": 1000, "prompts": 1, "images_per_prompt": 1},
            "checkpoint": {"every_steps": 1000},
        }
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(spec, folder)
    finally:
        torch.set_num_threads(threads)
    rows = [json.loads(line)["values"] for line in (folder / "metrics.ndjson").read_text().splitlines()]
    return [{name: row[name] for name in NAMES if name in row} for row in rows if "grad_norm" in row]


def write(path: Path) -> None:
    """Writes the numbers of all methods."""
    with tempfile.TemporaryDirectory() as folder:
        found = {method: first_updates(method, Path(folder) / method) for method in METHODS}
    path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    write(PATH)
    print(f"wrote {PATH}")
