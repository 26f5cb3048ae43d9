"""A process killed at any moment and started again trains the same adapter, to the bit.

The moments are drawn from a seed that is printed; EGRPO_KILL_SEED=n draws the same ones again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml
from egrpo_runs import Redness, short_spec, spec_document
from safetensors.torch import load_file

from egrpo import checkpoint
from egrpo.config import parse_spec
from egrpo.evaluate import WeightedReward
from egrpo.events import EventWriter
from egrpo.train import train

KILLS = 2


def num_rows(run: Path) -> int:
    path = run / "metrics.ndjson"
    return path.read_text().count("\n") if path.exists() else 0


def killed(command: list[str], run: Path, rng: random.Random) -> int:
    """Starts a process and kills it a while after it first measured something; returns its exit code."""
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())})
    before, until = num_rows(run), time.monotonic() + 90
    # A resumed process first drops the rows beyond its checkpoint, so any change says that it is past loading.
    while num_rows(run) == before and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.4))
    process.kill()
    return process.wait()


def test_killed_processes_leave_the_same_adapter(random_flux: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("EGRPO_KILL_SEED") or random.randrange(2**32))
    print(f"EGRPO_KILL_SEED={seed}")
    rng = random.Random(seed)
    document = spec_document(
        random_flux,
        reward={"components": [{"type": "incompressibility"}]},
        training={"steps": 8, "ema_decay": 0.8, "updates_per_rollout": 2},
        checkpoint={"every_steps": 1},
    )
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(document))
    run = tmp_path / "killed"
    command = [sys.executable, "-m", "egrpo", "train", str(spec), "--output", str(run), "--resume"]
    codes = [killed(command, run, rng) for _ in range(KILLS)]
    assert set(codes) <= {-signal.SIGKILL, 0}
    for path in (run / "checkpoints").glob("step-*"):
        checkpoint.read(path)
    train(parse_spec(document), run, resume=True)
    train(parse_spec(document), tmp_path / "straight")
    for name in ("adapter", "optimizer", "ema", "rng"):
        found, expected = (
            load_file(folder / "checkpoints" / "step-000008" / f"{name}.safetensors")
            for folder in (run, tmp_path / "straight")
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found), name
    assert not list((run / "checkpoints").glob(".*"))


def test_a_broken_newest_checkpoint_is_passed_over_with_a_warning(random_flux: Path, tmp_path: Path) -> None:
    rewards = [WeightedReward(Redness(), 1.0)]
    spec = short_spec(random_flux, training={"steps": 2}, checkpoint={"every_steps": 1})
    train(spec, tmp_path, rewards=rewards)
    newest = tmp_path / "checkpoints" / "step-000002"
    whole = (newest / "adapter.safetensors").read_bytes()
    (newest / "adapter.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    reading, writing = os.pipe()
    train(spec, tmp_path, rewards=rewards, resume=True, events=EventWriter(tmp_path, writing))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        events = [json.loads(line) for line in pipe]
    told = [event["message"] for event in events if event["type"] == "log" and event["level"] == "warning"]
    assert any("passed over" in message and "step-000002/adapter.safetensors" in message for message in told)
    assert any("resumed at step 1 from step-000001" in event.get("message", "") for event in events)
    assert (newest / "adapter.safetensors").read_bytes() == whole
