"""A trainer that computes nothing and tells what the example job's trainer tells, at its pace.

    paced_trainer.py --step-seconds 1.4 SPEC --output RUN --events-fd N

With it the cost of the service can be measured on a machine that is busy with other things: events come at a fixed rate
whatever the machine's speed. It writes the events of one step of `egrpo.train`, and checkpoints and samples of the
example job's sizes as often as its spec says.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import yaml

from egrpo.events import EventWriter, file_entries

NUM_METRICS = 22
CHECKPOINT_BYTES = {"adapter.safetensors": 500_000, "optimizer.safetensors": 1_000_000, "state.json": 20_000}
SAMPLES, SAMPLE_BYTES = 16, 2_600


class PacedTrainer:
    """Sleeps, and tells of steps."""

    def __init__(self, spec: Path, output: Path, events: EventWriter) -> None:
        document = yaml.safe_load(spec.read_text())
        self.steps = document["training"]["steps"]
        self.checkpoint_every = document["checkpoint"]["every_steps"]
        self.evaluate_every = document["evaluation"]["every_steps"]
        self.output, self.events = output, events

    def train(self, step_seconds: float) -> None:
        """Takes a step every `step_seconds` until the last."""
        self._evaluate(0)
        self.events.phase("training")
        due = time.monotonic()
        for step in range(1, self.steps + 1):
            due += step_seconds
            time.sleep(max(0.0, due - time.monotonic()))
            self.events.metric(step, {f"metric_{index}": step / 7 for index in range(NUM_METRICS)})
            self.events.progress(step, self.steps, 1 / step_seconds, (self.steps - step) * step_seconds)
            if step % self.evaluate_every == 0:
                self._evaluate(step)
                self.events.phase("training")
            if step % self.checkpoint_every == 0:
                self._commit(step)
                self.events.phase("training")

    def _evaluate(self, step: int) -> None:
        self.events.phase("evaluating")
        self.events.metric(step, {"eval_reward": 0.5, "eval_strict_accuracy": 0.5, "eval_shapes": 0.5})
        for index in range(SAMPLES):
            path = self._write(f"samples/step-{step:06d}/{index:03d}.png", SAMPLE_BYTES)
            self.events.sample(step, path, "a red circle above a blue square", index, {"shapes": 0.5}, True)

    def _commit(self, step: int) -> None:
        self.events.phase("checkpointing")
        folder = f"checkpoints/step-{step:06d}"
        for name, size in CHECKPOINT_BYTES.items():
            self._write(f"{folder}/{name}", size)
        files = file_entries(self.output / folder, list(CHECKPOINT_BYTES))
        self.events.checkpoint(step, "state", folder, files, 0.5)

    def _write(self, relative: str, size: int) -> str:
        path = self.output / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        return relative


def main() -> int:
    """Runs it; the supervisor adds all options but the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--step-seconds", type=float, required=True)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    trainer = PacedTrainer(options.spec, options.output, EventWriter(options.output, options.events_fd))
    trainer.train(options.step_seconds)
    return 75  # As if stopped: the bench cancels its job long before.


if __name__ == "__main__":
    sys.exit(main())
