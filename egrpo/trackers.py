"""Where measurements also go when the spec asks for it: TensorBoard, Weights & Biases, MLflow, through accelerate.

Off by default: `metrics.ndjson` and the events have everything. A tracker is told the run's name, the spec without its
prompts, and the metrics. Its credentials are its own affair: they come from its environment, and nothing here reads or
logs them. Only the main process tracks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from egrpo.config import TrainSpec
from egrpo.errors import ConfigError

FOLDER = "trackers"
PROJECT = "egrpo"


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers whose package is missing; called before the model is loaded.

    Raises:
        ConfigError: the message says what to install.
    """
    for index, name in enumerate(names):
        if find_spec(name) is None:
            raise ConfigError(f"/trackers/{index}: {name!r} needs the package {name} (pip install {name})")


class Trackers:
    """The trackers of one run; with no spec, as in all but the main process, none."""

    def __init__(self, spec: TrainSpec | None, run: Path) -> None:
        self._trackers: list[Any] = []
        if spec is None or not spec.trackers:
            return
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()
        config = dict(_flat(spec.model_dump(mode="json", exclude={"prompts", "trackers"})))
        for name in spec.trackers:
            kind = LOGGER_TYPE_TO_CLASS[name]
            # A spec's name may be no folder's: TensorBoard's files always lie in the same place of the run.
            tracker = kind(name, str(run / FOLDER)) if name == "tensorboard" else kind(PROJECT, **_named(name, spec))
            tracker.start()
            tracker.store_init_configuration({"name": spec.name, **config})
            self._trackers.append(tracker)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tells every tracker the measurements of a step."""
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)

    def finish(self) -> None:
        """Closes the trackers."""
        for tracker in self._trackers:
            tracker.finish()


def _named(tracker: str, spec: TrainSpec) -> dict[str, str]:
    return {"name" if tracker == "wandb" else "run_name": spec.name}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the scalars of a document by dotted name; lists as text, and no prompts."""
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            if "inline" not in entry:
                yield from _flat(entry, f"{prefix}{key}.")
        elif entry is not None:
            yield prefix + key, str(entry) if isinstance(entry, list) else entry
