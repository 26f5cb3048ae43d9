"""Compares steps per second of the bare trainer and of the service, in one run, in turns on the same machine.

    python bench/service_overhead.py --steps 20 --rounds 3

Both train the same spec and seed; both numbers are the trainer's own (steps ÷ training seconds of its report), so what
differs is what runs beside it: supervisor, uploads, database, API and a client that watches. The rounds alternate, and
each pair is compared, so that a machine that changes its speed does not decide. Prints a table; fails on nothing.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "quickstart.yaml")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of each run")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "overhead")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    spec = shortened(options.spec, options.output / "spec.yaml", options.steps)
    pairs = []
    print("| round | bare trainer | service | difference |\n|---:|---:|---:|---:|", flush=True)
    for number in range(1, options.rounds + 1):
        bare = run_bare(spec, options.output / f"bare-{number}")
        service = run_service(spec, options.output / f"service-{number}")
        pairs.append((bare, service))
        print(f"| {number} | {bare:.4f} steps/s | {service:.4f} steps/s | {service / bare - 1:+.2%} |", flush=True)
    differences = [service / bare - 1 for bare, service in pairs]
    print(f"| median | | | {statistics.median(differences):+.2%} |")


def shortened(source: Path, target: Path, steps: int) -> Path:
    """Writes the spec with so many steps, an evaluation at both ends, and a checkpoint in between as in a real run."""
    spec = yaml.safe_load(source.read_text())
    spec["training"] = {**(spec.get("training") or {}), "steps": steps}
    spec["evaluation"] = {**(spec.get("evaluation") or {}), "every_steps": steps}
    spec["checkpoint"] = {**(spec.get("checkpoint") or {}), "every_steps": max(1, steps // 2)}
    target.write_text(yaml.safe_dump(spec))
    return target


def run_bare(spec: Path, output: Path) -> float:
    """Trains without the service and returns steps per second."""
    log = output.with_suffix(".log")
    with log.open("wb") as file:
        command = [sys.executable, "-m", "egrpo", "train", str(spec), "--output", str(output)]
        subprocess.run(command, check=True, stdout=file, stderr=file)
    return steps_per_second(output / "report.json")


def run_service(spec: Path, output: Path) -> float:
    """Trains through a local stack, watched by a client, and returns steps per second."""
    log = output.with_suffix(".log")
    command = [sys.executable, "-m", "egrpo_client.cli", "quickstart", "--spec", str(spec), "--output", str(output)]
    env = {**os.environ, "EGRPO_HOME": str(output.parent / "stack")}
    with log.open("wb") as file:
        subprocess.run(command, check=True, stdout=file, stderr=file, env=env)
    return steps_per_second(output / "report.json")


def steps_per_second(report_path: Path) -> float:
    """Returns optimizer steps per second of training, evaluation not counted."""
    report = json.loads(report_path.read_text())
    return float(report["steps"] / report["training_seconds"])


if __name__ == "__main__":
    main()
