"""Commits on disk: whole or not there, verified, pruned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from egrpo import checkpoint
from egrpo.errors import CheckpointError

TENSORS = {"adapter": {"a.lora_A.weight": torch.arange(6.0).reshape(2, 3)}, "rng": {"noise": torch.zeros(4).byte()}}


def commit(root: Path, step: int, reward: float | None = None) -> checkpoint.Checkpoint:
    return checkpoint.commit(root, step, tensors=TENSORS, state={"step": step}, spec_digest="d", eval_reward=reward)


def steps_in(root: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in root.glob("step-*"))


def test_what_is_committed_is_read_back(tmp_path: Path) -> None:
    written = commit(tmp_path, 25, 0.5)
    read = checkpoint.read(tmp_path / "step-000025")
    assert read == written
    assert (read.step, read.spec_digest, read.eval_reward) == (25, "d", 0.5)
    assert torch.equal(read.tensors("adapter")["a.lora_A.weight"], TENSORS["adapter"]["a.lora_A.weight"])
    assert read.tensors("ema") == {}
    assert read.state() == {"step": 25}
    assert [path.name for path in tmp_path.iterdir()] == ["step-000025"]


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    assert {path.suffix for path in commit(tmp_path, 1).path.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "no manifest"])
def test_a_damaged_checkpoint_does_not_count(tmp_path: Path, damage: str) -> None:
    commit(tmp_path, 1)
    broken = commit(tmp_path, 2).path
    file = broken / "adapter.safetensors"
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        file.write_bytes(content[:-4])
    elif damage == "remove":
        file.unlink()
    else:
        (broken / "manifest.json").unlink()
    with pytest.raises(CheckpointError):
        checkpoint.read(broken)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_a_half_written_one_has_no_checkpoints_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(tmp_path, 1)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", refuse)
    with pytest.raises(CheckpointError, match=r"step 2 cannot be written .* No space left"):
        commit(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    commit(tmp_path, 1)
    commit(tmp_path, 1, 0.7)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert checkpoint.read(tmp_path / "step-000001").eval_reward == 0.7


def test_newest_of_nothing(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "missing") is None


def test_pruning_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    for step, reward in ((0, 0.1), (1, 0.9), (2, None), (3, 0.8), (4, 0.2), (5, 0.3)):
        commit(tmp_path, step, reward)
    dropped = checkpoint.prune(tmp_path, keep_last=2, keep_best=2)
    assert steps_in(tmp_path) == [1, 3, 4, 5]
    assert sorted(path.name for path in dropped) == ["step-000000", "step-000002"]
    checkpoint.prune(tmp_path, keep_last=1, keep_best=0)
    assert steps_in(tmp_path) == [5]


def test_the_manifest_names_every_file(tmp_path: Path) -> None:
    path = commit(tmp_path, 3).path
    manifest = json.loads((path / "manifest.json").read_text())
    assert {entry["path"] for entry in manifest["files"]} == {p.name for p in path.iterdir()} - {"manifest.json"}
    assert all(set(entry) == {"path", "sha256", "size_bytes"} for entry in manifest["files"])
