"""The NDJSON that a trainer writes while it runs: one JSON object a line, flushed, in the order of what happened.

The trainer is the only producer. A supervisor reads the pipe behind `--events-fd`; metric rows are also kept in
`RUN/metrics.ndjson`, so that a run without a supervisor has its curve.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from egrpo.errors import EGRPOError

METRICS_FILE = "metrics.ndjson"


class EventWriter:
    """Writes events to a file descriptor, when there is one, and metric rows to the run's folder."""

    def __init__(self, run: Path, events_fd: int | None = None) -> None:
        self._run = run
        self._pipe = None if events_fd is None else os.fdopen(events_fd, "w", buffering=1, closefd=False)

    def phase(self, phase: str) -> None:
        """Says what the trainer does now."""
        self._emit("phase", phase=phase)

    def progress(self, step: int, total_steps: int, steps_per_second: float, eta_seconds: float) -> None:
        """Says how far the trainer is."""
        self._emit(
            "progress",
            step=step,
            total_steps=total_steps,
            steps_per_second=round(steps_per_second, 4),
            eta_seconds=round(eta_seconds, 1),
        )

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Publishes measurements of one step and keeps them; what is not finite is left out, JSON has no word."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        row = self._emit("metric", step=step, values=finite)
        with (self._run / METRICS_FILE).open("a") as file:
            file.write(row + "\n")

    def forget_metrics_after(self, step: int) -> None:
        """Drops kept metric rows beyond a step: a resumed run writes them again."""
        path = self._run / METRICS_FILE
        if not path.exists():
            return
        rows = [line for line in path.read_text().splitlines() if _is_at_most(line, step)]
        path.write_text("".join(row + "\n" for row in rows))

    def sample(
        self,
        step: int,
        path: str,
        prompt: str,
        prompt_index: int,
        seed: int,
        rewards: Mapping[str, float],
        passed: bool,
        kind: str = "evaluation",
    ) -> None:
        """Publishes one evaluation image; its kind is `evaluation` (the fixed grid), `best` or `worst`.

        `prompt_index` counts the evaluation's prompts: the same one is the same prompt at every step.
        """
        self._emit(
            "sample",
            step=step,
            kind=kind,
            path=path,
            prompt=prompt,
            prompt_index=prompt_index,
            seed=seed,
            rewards=dict(rewards),
            passed=passed,
        )

    def checkpoint(
        self, step: int, kind: str, path: str, files: Sequence[Mapping[str, Any]], eval_reward: float | None
    ) -> None:
        """Publishes a committed folder with the digests of its files."""
        self._emit("checkpoint", step=step, kind=kind, path=path, files=list(files), eval_reward=eval_reward)

    def artifact(self, path: str) -> None:
        """Publishes a file of the finished run."""
        self._emit("artifact", path=path)

    def log(self, message: str, level: str = "info") -> None:
        """Publishes one line for people."""
        self._emit("log", level=level, message=message)

    def error(self, error: BaseException) -> None:
        """Publishes why the trainer ends; an error that is not ours is internal."""
        known = isinstance(error, EGRPOError)
        code = error.code if isinstance(error, EGRPOError) else "internal"
        message = str(error) if known else f"{type(error).__name__}: {error}"
        self._emit("error", code=code, message=message, retryable=isinstance(error, EGRPOError) and error.retryable)

    def _emit(self, type_: str, /, **fields: Any) -> str:
        line = json.dumps({"type": type_, **fields}, ensure_ascii=False, allow_nan=False)
        if self._pipe is not None:
            try:
                self._pipe.write(line + "\n")
                self._pipe.flush()
            except BrokenPipeError:
                # Whoever listened is gone; the run goes on, and its folder holds everything that matters.
                self._pipe = None
        return line


class Silence(EventWriter):
    """The events of a process that is not the main one: nothing is written."""

    def __init__(self) -> None:
        super().__init__(Path())

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Keeps nothing."""

    def forget_metrics_after(self, step: int) -> None:
        """Leaves the main process's file alone."""


def _is_at_most(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError):
        # A row that a kill cut in half.
        return False


def file_entries(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns {path, sha256, size_bytes} of files in a folder."""
    return [_file_entry(folder / name, name) for name in names]


def _file_entry(path: Path, name: str) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": name, "sha256": digest, "size_bytes": path.stat().st_size}
