"""The process: exit codes, last events, SIGTERM, and the plan command."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from egrpo_runs import EventPipe, spec_document

from egrpo.cli import main
from egrpo.methods import METHODS
from egrpo.schedule import shifted_sigmas
from egrpo.spec_file import read_spec
from egrpo.train import train


def write_spec(folder: Path, model: Path | str, **sections: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**spec_document(Path("/")), **spec_document(Path(model), **sections)}))
    return path


class Process:
    """`python -m egrpo train` with a pipe for its events."""

    def __init__(self, spec: Path, run: Path, *arguments: str) -> None:
        pipe = EventPipe()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "egrpo",
                "train",
                str(spec),
                "--output",
                str(run),
                "--events-fd",
                str(pipe.writer),
                *arguments,
            ],
            pass_fds=[pipe.writer],
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(pipe.writer)
        self.read_until, self.stop_reading, self.events = pipe.read_until, pipe.close, pipe.events

    def finish(self) -> int:
        self.read_until("nothing")
        self.stop_reading()
        _, self.errors = self.process.communicate(timeout=120)
        return self.process.returncode


def test_sigterm_commits_and_resume_finishes_the_same_adapter(random_flux: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, random_flux, training={"steps": 15}, checkpoint={"every_steps": 1000})
    stopped = Process(spec, tmp_path / "stopped")
    stopped.read_until("progress", step=3)
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.finish() == 75, stopped.errors
    committed = [event for event in stopped.events if event["type"] == "checkpoint"]
    assert len(committed) == 1
    step = committed[0]["step"]
    assert 3 <= step < 15
    assert step == max(event["step"] for event in stopped.events if event["type"] == "progress")
    assert (tmp_path / "stopped" / committed[0]["path"] / "manifest.json").exists()
    assert not any(event["type"] == "error" for event in stopped.events)

    resumed = Process(spec, tmp_path / "stopped", "--resume")
    train(read_spec(spec), tmp_path / "straight")
    assert resumed.finish() == 0, resumed.errors
    assert next(event["step"] for event in resumed.events if event["type"] == "progress") == step + 1
    name = "adapter/pytorch_lora_weights.safetensors"
    assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_signal_while_loading_commits_step_zero(random_flux: Path, tmp_path: Path) -> None:
    # It reaches no first update of itself for a long while, however late the signal comes.
    spec = write_spec(tmp_path, random_flux, evaluation={"prompts": 6, "images_per_prompt": 256})
    process = Process(spec, tmp_path / "run")
    process.read_until("phase", phase="loading_model")
    process.process.send_signal(signal.SIGTERM)
    assert process.finish() == 75, process.errors
    assert [event["step"] for event in process.events if event["type"] == "checkpoint"] == [0]


def run_in_process(spec: Path, run: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    path = spec.parent / "events"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        code = main(["train", str(spec), "--output", str(run), "--events-fd", str(descriptor), *arguments])
    finally:
        os.close(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{base_model: tiny-flux-shapes", "cannot be read as YAML"),
        ("[1, 2]", "must be a mapping, got list"),
        ("{base_model: nope, prompts: {inline: [a]}, reward: {components: [{type: shapes}]}}", "/base_model"),
    ],
)
def test_a_bad_spec_exits_2(tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    code, events = run_in_process(spec, tmp_path / "run")
    assert code == 2
    assert events[-1]["type"] == "error"
    assert (events[-1]["code"], events[-1]["retryable"]) == ("invalid_spec", False)
    assert message in events[-1]["message"]
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_missing_spec_exits_2(tmp_path: Path) -> None:
    assert run_in_process(tmp_path / "missing.yaml", tmp_path / "run")[0] == 2


def test_a_model_that_cannot_be_loaded_exits_66(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    code, events = run_in_process(write_spec(tmp_path, tmp_path / "model"), tmp_path / "run")
    assert code == 66
    assert events[-1]["code"] == "model_unavailable"


@pytest.mark.parametrize(
    ("how", "exit_code", "code"),
    [("raise", 69, "reward_failed"), ("nan", 65, "non_finite_loss"), ("exit", 70, "internal")],
)
def test_failures_on_the_way(
    random_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, exit_code: int, code: str
) -> None:
    """The outer edge is faked: a reward that raises or is not finite, and a disk that is no folder."""
    import numpy as np

    from egrpo.rewards import LOADERS, RewardBatch

    class Broken:
        name, range = "broken", (0.0, 1.0)

        def __call__(self, images_BCHW: Any, prompts: Any) -> RewardBatch:
            if how == "raise":
                raise RuntimeError("no weights")
            return RewardBatch(
                np.full(len(prompts), np.nan if how == "nan" else 0.5), np.ones(len(prompts), dtype=bool)
            )

    monkeypatch.setitem(LOADERS, "shapes", lambda component: Broken())
    run = tmp_path / "run"
    if how == "exit":
        run.mkdir()
        (run / "samples").write_text("a file where a folder must be")
    found, events = run_in_process(write_spec(tmp_path, random_flux), run)
    assert found == exit_code
    assert events[-1]["type"] == "error"
    assert events[-1]["code"] == code


def test_a_listener_that_goes_away_does_not_end_the_run(random_flux: Path, tmp_path: Path) -> None:
    process = Process(write_spec(tmp_path, random_flux), tmp_path / "run")
    process.read_until("phase", phase="training")
    process.stop_reading()
    _, errors = process.process.communicate(timeout=120)
    assert process.process.returncode == 0, errors
    assert (tmp_path / "run" / "report.json").exists()


def test_a_closed_events_descriptor_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "spec.yaml", "--output", str(tmp_path), "--events-fd", "987"]) == 2
    assert "--events-fd 987 cannot be written to" in capsys.readouterr().err


def test_usage_errors_exit_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train"])
    assert caught.value.code == 2


def test_plan_prints_the_reference_plan(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--steps", "16", "--shift", "3", "--eta", "0.7", "--entropy-threshold", "2.2"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"][0] == {
        "start": 0,
        "length": 1,
        "entropy": pytest.approx(2.893, abs=5e-4),
        "dispersion": pytest.approx(1.036, abs=5e-4),
    }
    assert len(plan["sigmas"]) == 17
    assert main(arguments) == 0
    assert "1012 network evaluations per prompt with groups of 12" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        "--merging fixed --fixed-length 6",
        "--merging fixed",
        "--active-steps 3,99",
        "--steps 0",
        "--shift 0",
        "--eta -1",
        "--kernel cps --eta 1.5",
        "--method mix_grpo --window-size 17",
        "--beside flow_grpo",
        "--draw missing/folder/plan.png",
        "--draw plan.txt",
        "missing.yaml",
    ],
)
def test_a_bad_plan_exits_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments.split()]) == 2
    assert capsys.readouterr().err.startswith("egrpo: ")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kernel", ["flow_sde", "cps"])
def test_the_plan_of_every_method(method: str, kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--method", method, "--kernel", kernel, "--eta", "0.6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = METHODS[method](type=method, kernel=kernel, eta=0.6).plan(shifted_sigmas(16, 3.0))
    assert found == {"method": method, **expected.to_dict()}
    assert {"start", "length", "entropy", "dispersion"} == set(found["steps"][0])
    assert main(["plan", "--method", method, "--kernel", kernel, "--eta", "0.6"]) == 0
    assert "network evaluations per prompt with groups of 12" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--method dance_grpo --entropy-threshold 2",
            "--entropy-threshold: the method 'dance_grpo' has no such option",
        ),
        ("--window-size 2", "--window-size: the method 'egrpo' has no such option"),
        (
            "--method mix_grpo --granularities 1,2",
            "allowed: --steps, --shift, --kernel, --eta, --group-size, --window-s",
        ),
        ("examples/quickstart.yaml --eta 1", "--eta: the spec file says it; allowed beside one: --json"),
        ("examples/quickstart.yaml --method g2rpo", "--method: the spec file says it"),
    ],
)
def test_options_that_do_not_go_together(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_the_plan_of_a_spec_is_on_its_models_own_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {**spec_document(Path("tiny-flux-shapes")), "method": {"type": "flow_grpo_fast", "sampling_steps": 6}}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(document))
    assert main(["plan", str(spec), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "flow_grpo_fast"
    # 16 tokens, through (256, 0.5) and (4096, 1.15).
    assert found["sigmas"] == pytest.approx(shifted_sigmas(6, math.exp(0.5 + 0.65 * (16 - 256) / (4096 - 256))))


def test_the_plan_of_a_spec_whose_schedule_is_not_known(
    random_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(write_spec(tmp_path, random_flux, method={"shift": None}))]) == 2
    assert "allowed here: method.shift" in capsys.readouterr().err


def test_the_drawing_is_a_png_of_every_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.png"
    assert main(["plan", "--steps", "6", "--draw", str(path), "--beside", "mix_grpo,flow_grpo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "egrpo"
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        main(["plan", "--draw", str(path), "--beside", "ppo"])
    assert "'ppo' is no method; allowed: egrpo, g2rpo" in capsys.readouterr().err


def test_plan_is_quick_and_free_of_torch() -> None:
    started = time.monotonic()
    code = "import sys; from egrpo.cli import main; main(['plan', '--json']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert time.monotonic() - started < 30
