"""The loss curves of a build: kept as rows, printed as progress, drawn as a picture."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path


class LossCurve:
    """Collects losses by stage and writes them, averaged over windows, as JSON and PNG."""

    def __init__(self, window: int = 50) -> None:
        self._window = window
        self._sums: dict[str, list[float]] = defaultdict(list)
        self.rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}

    @classmethod
    def read(cls, folder: Path, settings: dict[str, object]) -> LossCurve:
        """Returns the curves of the build in a folder; empty ones where there is none.

        Raises:
            ValueError: the build was made with other settings; the message names them.
        """
        curve, path = cls(), folder / "build.json"
        if path.exists():
            body = json.loads(path.read_text())
            wanted = json.loads(json.dumps(settings))
            others = [name for name in wanted if body.get(name) != wanted[name]]
            if others:
                differences = "; ".join(f"{name} {body.get(name)}, not {wanted[name]}" for name in others)
                raise ValueError(f"{path} is of another build: {differences}. Build without --resume, or elsewhere")
            curve.rows.update(body["loss"])
            curve.seconds.update(body["seconds"])
        return curve

    def finished(self, stage: str, total: int) -> bool:
        """Returns whether a stage was trained to its last step."""
        return stage in self.rows and self.rows[stage][-1][0] == total

    def add(self, stage: str, step: int, loss: float, total: int) -> None:
        """Adds one loss; every window prints a line with the stage, its mean loss and the time to go."""
        self._started.setdefault(stage, time.monotonic())
        self._sums[stage].append(loss)
        if len(self._sums[stage]) == self._window or step + 1 == total:
            mean = sum(self._sums[stage]) / len(self._sums[stage])
            self.rows[stage].append((step + 1, mean))
            self._sums[stage] = []
            self.seconds[stage] = time.monotonic() - self._started[stage]
            to_go = self.seconds[stage] / (step + 1) * (total - step - 1)
            print(f"{stage} step {step + 1}/{total} loss {mean:.4f} to go {to_go:.0f} s", flush=True)

    def write(self, folder: Path, extra: dict[str, object]) -> None:
        """Writes build.json (settings, seconds, rows) and loss_curve.png."""
        body = {**extra, "seconds": self.seconds, "loss": self.rows}
        (folder / "build.json").write_text(json.dumps(body, indent=1) + "\n")
        from matplotlib.figure import Figure  # only a finished build draws

        figure = Figure(figsize=(9, 3), layout="constrained")
        for axis, (stage, rows) in zip(
            figure.subplots(1, len(self.rows), squeeze=False)[0], self.rows.items(), strict=True
        ):
            axis.plot(*zip(*rows, strict=True))
            axis.set(title=f"{stage}, {self.seconds[stage] / 60:.0f} min", xlabel="step", ylabel="loss", yscale="log")
        figure.savefig(folder / "loss_curve.png", dpi=100)
