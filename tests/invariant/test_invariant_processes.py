"""Two processes that share the prompts must train what one process trains (gloo, CPU)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import smooth_rewards
import torch
import yaml
from egrpo_runs import EventPipe, spec_document
from safetensors.torch import load_file

from egrpo.config import parse_spec
from egrpo.errors import ConfigError
from egrpo.processes import Processes
from egrpo.rewards import LOADERS
from egrpo.train import train
from egrpo_client.stack.ports import free_ports


def document(model: Path) -> dict[str, Any]:
    """Two rewards, whose combination needs the whole batch, and two updates on each rollout."""
    return spec_document(
        model,
        reward={"components": [{"type": "incompressibility"}, {"type": "compressibility", "weight": 0.3}]},
        training={"steps": 4, "updates_per_rollout": 2, "ema_decay": 0.5, "clip_range": 0.1},
        evaluation={"every_steps": 4, "prompts": 3, "images_per_prompt": 1},
        checkpoint={"every_steps": 1, "keep_last": 9},
    )


def start_two(
    spec: dict[str, Any], output: Path, *options: str, events: EventPipe | None = None
) -> list[subprocess.Popen[str]]:
    """Starts two processes as a launcher does."""
    inherited = [events.writer] if events else []
    if events:
        options = (*options, "--events-fd", str(events.writer))
    output.mkdir(exist_ok=True)
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(spec))
    (port,) = free_ports(1)
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, smooth_rewards.__file__, "train", str(path), "--output", str(output), *options]
    processes = [
        subprocess.Popen(
            command,
            pass_fds=inherited,
            env={**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for descriptor in inherited:
        os.close(descriptor)
    return processes


def ends(processes: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Returns exit codes and everything that was printed."""
    printed = "".join(process.communicate(timeout=120)[0] for process in processes)
    return [process.returncode for process in processes], printed


def state(run: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:06d}" / f"{name}.safetensors")


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.ndjson").read_text().splitlines()]


@pytest.fixture(scope="module", autouse=True)
def smooth() -> Iterator[None]:
    """The rewards of this process are those of the processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, loader in smooth_rewards.SMOOTH.items():
            patch.setitem(LOADERS, name, loader)
        yield


@pytest.fixture(scope="module")
def alone(random_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(parse_spec(document(random_flux)), folder)
    return folder


def assert_same_training(run: Path, alone: Path) -> None:
    for name in ("adapter", "ema"):
        expected = state(alone, 4, name)
        assert any(float(tensor.abs().max()) > 1e-4 for key, tensor in expected.items() if "lora_B" in key)
        for key, tensor in state(run, 4, name).items():
            # Adam divides by the gradient's size: where that is nearly zero, rounding is visible in the step.
            torch.testing.assert_close(tensor, expected[key], rtol=1e-2, atol=1e-5)


def test_two_processes_train_what_one_trains(random_flux: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "two"
    codes, printed = ends(start_two(document(random_flux), run))
    assert codes == [0, 0], printed
    # Adam's first average is the gradient times 1 - beta1.
    one, two = state(alone, 1, "optimizer"), state(run, 1, "optimizer")
    gradients = [name for name in one if name.endswith(":exp_avg")]
    largest = max(float(one[name].abs().max()) for name in gradients)
    assert max(float((one[name] - two[name]).abs().max()) for name in gradients) < 1e-4 * largest
    assert_same_training(run, alone)
    # One writer: a row for each evaluation and step, the same numbers, one summary.
    assert [row["step"] for row in rows(run)] == [row["step"] for row in rows(alone)]
    for mine, theirs in zip(rows(run), rows(alone), strict=True):
        timed = {name for name in mine["values"] if "second" in name or "bytes" in name}
        measured = {name: value for name, value in mine["values"].items() if name not in timed}
        assert measured == pytest.approx({name: theirs["values"][name] for name in measured}, rel=2e-3, abs=1e-5)
    assert printed.count("report.json") == 1
    assert not list(run.rglob(".tmp-*"))


def test_a_stop_of_one_stops_both_and_one_process_goes_on(random_flux: Path, alone: Path, tmp_path: Path) -> None:
    """Stopped between two updates on one rollout: each process held its half of it."""
    run = tmp_path / "two"
    events = EventPipe()
    pair = start_two(document(random_flux), run, events=events)
    events.read_until("checkpoint", step=1)
    pair[1].send_signal(signal.SIGTERM)
    events.read_until("nothing")
    events.close()
    codes, printed = ends(pair)
    assert codes == [75, 75], printed
    train(parse_spec(document(random_flux)), run, resume=True)
    assert_same_training(run, alone)


def sharded_document(model: Path) -> dict[str, Any]:
    """A full fine-tune. One reward: of the prompts that two processes share, one of them has all that are flat."""
    spec = document(model)
    spec["reward"] = {"components": [{"type": "incompressibility"}]}
    spec["training"] |= {"mode": "full", "lora": None, "sharding": "fsdp2", "steps": 5}
    return spec


def cut_after(run: Path, step: int) -> None:
    for path in (run / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


def assert_same_weights(run: Path, alone: Path, step: int) -> None:
    for name in ("transformer", "ema"):
        expected, found = state(alone, step, name), state(run, step, name)
        assert found.keys() == expected.keys()
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-2, atol=1e-5)


def test_two_processes_with_sharded_weights_train_what_one_trains(random_flux: Path, tmp_path: Path) -> None:
    """They go on from a checkpoint of one process, and one process goes on from theirs."""
    spec, alone, run = sharded_document(random_flux), tmp_path / "alone", tmp_path / "two"
    train(parse_spec(spec), alone)
    shutil.copytree(alone, run)
    shutil.rmtree(run / "adapter")
    cut_after(run, 2)
    # The pictures of the base are drawn again, so the base is loaded into the shares.
    shutil.rmtree(run / "samples" / "step-000000")
    codes, printed = ends(start_two(spec, run, "--resume", "--events-fd", "1"))
    assert codes == [0, 0], printed

    size = sum(tensor.numel() for tensor in state(alone, 5, "transformer").values())
    own = re.search(r"2 processes, of which this one holds (\d+) trained", printed)
    assert own, printed
    assert size / 2 <= int(own[1]) < 0.55 * size
    assert 3.0 in [row["values"].get("zero_variance_groups") for row in rows(alone)]  # One process has all of these.
    moved = [float((a - b).abs().max()) for a, b in pairs(state(alone, 5, "transformer"), state(run, 2, "transformer"))]
    assert max(moved) > 1e-3
    assert_same_weights(run, alone, 5)
    # Files are those of one process: nothing but the numbers says how many there were.
    for name in ("optimizer", "transformer"):
        one, two = state(alone, 5, name), state(run, 5, name)
        assert {key: (t.shape, t.dtype) for key, t in one.items()} == {
            key: (t.shape, t.dtype) for key, t in two.items()
        }
    exported = load_file(run / "adapter" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(a, b) for a, b in pairs(exported, state(run, 5, "ema")))
    assert (run / "adapter" / "config.json").read_text() == (alone / "adapter" / "config.json").read_text()

    cut_after(run, 3)
    train(parse_spec(spec), run, resume=True)
    assert_same_weights(run, alone, 5)


def test_a_stop_of_one_stops_both_where_weights_are_sharded(random_flux: Path, tmp_path: Path) -> None:
    """Both end with 75: a process whose group lives on when the interpreter ends aborts instead."""
    spec, run = sharded_document(random_flux), tmp_path / "run"
    spec["training"]["steps"] = spec["evaluation"]["every_steps"] = spec["checkpoint"]["every_steps"] = 10_000
    pair = start_two(spec, run)
    until = time.monotonic() + 90
    while not (run / "metrics.ndjson").exists() and time.monotonic() < until:
        time.sleep(0.02)
    pair[1].send_signal(signal.SIGTERM)
    codes, printed = ends(pair)
    assert codes == [75, 75], printed
    assert len(list((run / "checkpoints").glob("step-*"))) == 1


def pairs(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    assert one.keys() == two.keys()
    return [(tensor, two[name]) for name, tensor in one.items()]


def test_prompts_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"6 prompts cannot be shared by 4 processes.*\[1, 2, 3, 6\].*multiple of 4"):
        Processes(0, 4).check_divides(6)
