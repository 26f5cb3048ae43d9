"""The trainer's NDJSON events, checked.

The trainer loads models and runs rewards, so what it writes is input, not truth: unknown fields are dropped, unknown
types and malformed lines are errors that name the line, and no path may lead out of the run folder.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

MAX_LINE_BYTES = 1 << 20  # The longest real event is a checkpoint's file list, a few KiB.


class ProtocolError(ValueError):
    """A line of the trainer is not an event of the protocol."""


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


def _only_finite(values: Any) -> Any:
    """Drops null, NaN and infinite entries: a database of metrics cannot hold them and JSON cannot carry them."""
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
FiniteValues = Annotated[dict[str, float], BeforeValidator(_only_finite)]
Step = Annotated[int, Field(ge=0, lt=2**31)]


class PhaseEvent(_Event):
    """The trainer entered a phase of its work."""

    type: Literal["phase"]
    phase: str = Field(min_length=1, max_length=64)


class ProgressEvent(_Event):
    """An optimizer step ended."""

    type: Literal["progress"]
    step: Step
    total_steps: Step
    steps_per_second: Number = None
    eta_seconds: Number = None


class MetricEvent(_Event):
    """Values measured at a step."""

    type: Literal["metric"]
    step: Step
    values: FiniteValues


class SampleEvent(_Event):
    """An image that the trainer drew and scored."""

    type: Literal["sample"]
    step: Step
    kind: str = Field(min_length=1, max_length=64)
    path: str
    prompt: str
    prompt_index: int | None = Field(default=None, ge=0, lt=2**31)
    seed: int = Field(ge=-(2**63), lt=2**63)
    rewards: FiniteValues = Field(default_factory=dict)
    passed: bool | None = None


class FileEntry(_Event):
    """One file of a checkpoint, relative to the checkpoint's folder."""

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class CheckpointEvent(_Event):
    """A whole checkpoint lies on the disk: a `state` to resume from, or the exported `adapter`."""

    type: Literal["checkpoint"]
    step: Step
    kind: Literal["state", "adapter"]
    path: str
    files: list[FileEntry] = Field(min_length=1)
    eval_reward: Number = None


class ArtifactEvent(_Event):
    """A file for people: a report, a contact sheet, a curve."""

    type: Literal["artifact"]
    path: str


class LogEvent(_Event):
    """A line for the job's log."""

    type: Literal["log"]
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: str


class ErrorEvent(_Event):
    """Why the trainer is about to end with a non-zero exit code."""

    type: Literal["error"]
    code: str = Field(min_length=1, max_length=64)
    message: str
    retryable: bool = False


TrainerEvent = Annotated[
    PhaseEvent | ProgressEvent | MetricEvent | SampleEvent | CheckpointEvent | ArtifactEvent | LogEvent | ErrorEvent,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[TrainerEvent] = TypeAdapter(TrainerEvent)


def parse_event(line: bytes) -> TrainerEvent:
    """Returns the event in one line of the trainer.

    Args:
        line: One line, with or without its newline.

    Returns:
        The checked event.

    Raises:
        ProtocolError: If the line is too long, is not JSON, or is not an event of the protocol.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"a line of {len(line)} bytes is longer than {MAX_LINE_BYTES}")
    try:
        return _ADAPTER.validate_python(_storable(json.loads(line)))
    except (ValidationError, ValueError, RecursionError) as error:
        shown = line[:200].decode("utf-8", "replace").strip()
        raise ProtocolError(f"not an event of the trainer's protocol: {shown!r}") from error


def _storable(value: Any) -> Any:
    """Replaces what JSON strings may hold and PostgreSQL's may not: NUL and halves of surrogate pairs."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    return value


def path_inside(folder: Path, relative: str) -> Path:
    """Returns `folder / relative`, having checked that it does not lead out of the folder, by links neither.

    Raises:
        ProtocolError: If the path is absolute, climbs out, or resolves to a place outside the folder.
    """
    root = folder.resolve()
    path = (root / relative).resolve()
    if ".." in Path(relative).parts or path == root or not path.is_relative_to(root):
        raise ProtocolError(f"the path {relative!r} leads out of the run folder")
    return path
