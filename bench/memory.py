"""Compares the memory estimate with what runs of tiny-flux-shapes really took: a table, made on this machine.

Every row is two optimizer steps in a process of its own, CPU only. `python bench/memory.py`
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "small": {},
    "wide update": {"training": {"prompts_per_update": 256, "micro_batch_size": 256}},
    "wide update, attention only": {
        "training": {"prompts_per_update": 256, "micro_batch_size": 256, "lora": {"rank": 16, "targets": "attention"}}
    },
    "wide update, bfloat16": {
        "training": {"prompts_per_update": 256, "micro_batch_size": 256, "precision": "bfloat16"}
    },
    "wide rollout": {
        "training": {"prompts_per_update": 16, "micro_batch_size": 1024},
        "method": {"group_size": 64},
    },
    "256 pixels": {
        "height": 256,
        "width": 256,
        "training": {"prompts_per_update": 16, "micro_batch_size": 16},
        "method": {"group_size": 4},
    },
    "512 pixels": {
        "height": 512,
        "width": 512,
        "training": {"prompts_per_update": 2, "micro_batch_size": 4},
        "method": {"group_size": 2},
    },
    "rank 256": {"training": {"lora": {"rank": 256, "targets": "all"}, "ema_decay": 0.9}},
}


def document(**sections: Any) -> dict[str, Any]:
    """Returns a spec of two optimizer steps, with sections merged in."""
    base: dict[str, Any] = {
        "base_model": "tiny-flux-shapes",
        "prompts": {"inline": ["a red circle", "a blue square"]},
        "reward": {"components": [{"type": "shapes"}]},
        "method": {"sampling_steps": 4, "shift": 3.0, "active_steps": [0], "group_size": 4, "merging": "none"},
        # The KL term makes the update run all groups, also those whose rewards are equal.
        "training": {"steps": 2, "prompts_per_update": 4, "kl_weight": 0.01, "startup_checks": "warn"},
        "evaluation": {"prompts": 1, "images_per_prompt": 1},
    }
    for name, section in sections.items():
        base[name] = {**base[name], **section} if isinstance(section, dict) else section
    return base


def measure(configuration: dict[str, Any], folder: Path) -> tuple[float, float, float, str]:
    """Returns held, estimated and measured peak in MiB, and the phase that the estimate names."""
    spec = folder / "spec.yaml"
    spec.write_text(yaml.safe_dump(document(**configuration)))
    command = [sys.executable, "-m", "egrpo", "train", str(spec), "--output", str(folder / "run"), "--events-fd", "1"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    line = next(event["message"] for event in events if event.get("message", "").startswith("memory:"))
    found = re.search(r"about ([\d.]+) GiB at the peak \(([\d.]+) GiB held\), in the phase (\w+)", line)
    assert found is not None, line
    peak = next(event["values"]["peak_memory_bytes"] for event in events if "peak_memory_bytes" in str(event))
    return float(found[2]) * 1024, float(found[1]) * 1024, peak / 2**20, found[3]


def main() -> None:
    """Prints the table."""
    print("| run | held | estimated | measured | growth estimated/measured | phase |\n|---|---|---|---|---|---|")
    for name, configuration in CONFIGURATIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            held, expected, peak, phase = measure(configuration, Path(folder))
        ratio = (expected - held) / (peak - held)
        print(f"| {name} | {held:.0f} MiB | {expected:.0f} | {peak:.0f} | {ratio:.2f} | {phase} |", flush=True)


if __name__ == "__main__":
    main()
