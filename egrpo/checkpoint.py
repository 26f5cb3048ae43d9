"""Committed training state on disk: a checkpoint is whole or it is not there. Safetensors and JSON only, no pickles.

A checkpoint is the folder `checkpoints/step-NNNNNN`. It is written under a temporary name, every file and the folder
are fsynced, and then renamed. Its `manifest.json` holds step, spec digest and the sha256 and size of every file; what
does not match its manifest does not count.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from egrpo.errors import CheckpointError
from egrpo.events import file_entries

MANIFEST = "manifest.json"
STATE = "state.json"
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: where it is and what its manifest says."""

    path: Path
    step: int
    spec_digest: str
    eval_reward: float | None
    files: tuple[dict[str, Any], ...]

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Returns the tensors of one file, empty if the checkpoint has none of that name."""
        path = self.path / f"{name}.safetensors"
        return load_file(path) if path.exists() else {}

    def state(self) -> dict[str, Any]:
        """Returns the JSON part: step, prompt order, random draws, evaluations."""
        document: dict[str, Any] = json.loads((self.path / STATE).read_text())
        return document


def commit(
    root: Path,
    step: int,
    *,
    tensors: Mapping[str, Tensors],
    state: Mapping[str, Any],
    spec_digest: str,
    eval_reward: float | None,
) -> Checkpoint:
    """Writes a checkpoint; when this returns it is on disk. An older one of the same step is replaced.

    Raises:
        CheckpointError: the disk refused; nothing half-written carries a checkpoint's name.
    """
    final, temporary = root / f"step-{step:06d}", root / f".tmp-step-{step:06d}-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, group in tensors.items():
            save_file({key: value.contiguous() for key, value in group.items()}, temporary / f"{name}.safetensors")
        (temporary / STATE).write_text(json.dumps(state))
        files = file_entries(temporary, sorted(path.name for path in temporary.iterdir()))
        manifest = {"step": step, "spec_digest": spec_digest, "eval_reward": eval_reward, "files": files}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _sync(temporary)
        _replace(temporary, final)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"checkpoint of step {step} cannot be written to {root}: {error}") from error
    return read(final)


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(temporary: Path, final: Path) -> None:
    if final.exists():
        # A folder cannot be renamed onto a full one. Between the two renames the step is missing, and the one before
        # it is still there.
        old = final.with_name(f".old-{final.name}-{os.getpid()}")
        final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old)
    else:
        temporary.rename(final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Checkpoint:
    """Returns the checkpoint of a folder after checking every file against the manifest.

    Raises:
        CheckpointError: no manifest, a file missing or of another size or digest; the message names it.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files = manifest["files"]
        found = file_entries(path, [entry["path"] for entry in files])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {error}") from error
    for expected, actual in zip(files, found, strict=True):
        if expected != actual:
            raise CheckpointError(f"{path / expected['path']} is not what the manifest says: {actual} != {expected}")
    return Checkpoint(path, manifest["step"], manifest["spec_digest"], manifest.get("eval_reward"), tuple(files))


def newest(root: Path, say: Callable[[str], None] = lambda message: None) -> Checkpoint | None:
    """Returns the newest whole checkpoint, or None; broken ones are passed over, and `say` is told why."""
    for path in sorted(root.glob("step-*"), reverse=True):
        try:
            return read(path)
        except CheckpointError as error:
            say(f"passed over: {error}")
    return None


def prune(root: Path, *, keep_last: int, keep_best: int) -> list[Path]:
    """Deletes all but the newest `keep_last` and the `keep_best` of highest evaluation reward; returns the deleted.

    What a kill left half-written goes too: only one process writes, and it is here.
    """
    for path in [*root.glob(".tmp-step-*"), *root.glob(".old-step-*")]:
        shutil.rmtree(path)
    rewards: dict[Path, float | None] = {}
    for path in sorted(root.glob("step-*")):
        try:
            rewards[path] = json.loads((path / MANIFEST).read_text()).get("eval_reward")
        except (OSError, ValueError):
            rewards[path] = None
    evaluated = {path: reward for path, reward in rewards.items() if reward is not None}
    best = sorted(evaluated, key=lambda path: evaluated[path], reverse=True)[:keep_best]
    dropped = [path for path in rewards if path not in {*list(rewards)[-keep_last:], *best}]
    for path in dropped:
        shutil.rmtree(path)
    return dropped
