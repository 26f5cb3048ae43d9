"""`egrpo quickstart`, the driver of `make run`: from the spec file to files that stock diffusers loads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from egrpo_client.stack.folder import StackFolder
from egrpo_client.stack.ports import free_ports

SPEC = """
name: quickstart-test
base_model: tiny-flux-shapes
prompts: {inline: [a red circle, a blue square, a black star]}
reward: {components: [{type: shapes}]}
method: {type: egrpo, sampling_steps: 4, active_steps: [0], group_size: 3, entropy_threshold: 0.5}
training: {steps: 3, prompts_per_update: 1, lora: {rank: 2, alpha: 4}, seed: 42}
evaluation: {every_steps: 3, prompts: 1, images_per_prompt: 2}
checkpoint: {every_steps: 3}
"""
TRAINER_ON_FOLDER = Path(__file__).parents[2] / "e2e" / "trainer_on_folder.py"


def environment(folder: Path, random_flux: Path) -> dict[str, str]:
    """Returns an environment in which the trainer finds the tiny model in another folder."""
    trainer = [sys.executable, str(TRAINER_ON_FOLDER), str(random_flux), "train"]
    own = {"EGRPO_TRAINER_COMMAND": json.dumps(trainer), "EGRPO_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def egrpo(folder: Path, random_flux: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "egrpo_client.cli", *arguments]
    env = environment(folder, random_flux)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)


def quickstart(folder: Path, random_flux: Path, *arguments: str, spec: str = SPEC) -> subprocess.CompletedProcess[str]:
    (folder / "spec.yaml").write_text(spec)
    return egrpo(folder, random_flux, "quickstart", "--spec", "spec.yaml", "--output", "out", *arguments)


@pytest.mark.timeout(600)
def test_quickstart_leaves_report_pictures_and_an_adapter_and_no_process(tmp_path: Path, random_flux: Path) -> None:
    done = quickstart(tmp_path, random_flux, "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert report["seed"] == 7
    assert report["steps"] == 3
    assert (out / "contact_sheet.png").stat().st_size > 0
    assert (out / "reward_curve.png").stat().st_size > 0
    assert (out / "adapter" / "pytorch_lora_weights.safetensors").stat().st_size > 0
    for part in ("eval reward", "strict accuracy", "FluxPipeline.from_pretrained(", "load_lora_weights('out/adapter')"):
        assert part in done.stdout
    state = StackFolder(tmp_path / "home").load()
    assert state.status == "stopped"
    assert state.living() == []


def test_refused_spec_shows_every_error_and_stops_the_stack(tmp_path: Path, random_flux: Path) -> None:
    spec = SPEC.replace("base_model: tiny-flux-shapes", "base_model: nope").replace(
        "steps: 3, prompts", "steps: 0, prompts"
    )
    done = quickstart(tmp_path, random_flux, spec=spec)
    assert done.returncode == 2
    assert "/base_model" in done.stderr
    assert "/training/steps" in done.stderr
    assert StackFolder(tmp_path / "home").load().living() == []


@pytest.mark.timeout(600)
def test_every_command_about_jobs_on_a_running_stack(tmp_path: Path, random_flux: Path) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        done = egrpo(tmp_path, random_flux, *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "long.yaml").write_text(SPEC.replace("steps: 3, prompts", "steps: 3000, prompts"))
    run("up", "--detach", "--port", str(free_ports(1)[0]))
    try:
        first = json.loads(run("submit", "spec.yaml", "--seed", "7", "--json"))
        assert first["spec"]["training"]["seed"] == 7
        assert f"{first['id']} succeeded" in run("watch", first["id"])
        events = [json.loads(line) for line in run("watch", first["id"], "--json").splitlines()]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert "trained parameters" in run("logs", first["id"])
        assert "adapter" in run("show", first["id"])
        files = json.loads(run("download", first["id"], "--output", "files", "--json"))
        assert all((tmp_path / file["path"]).stat().st_size == file["size_bytes"] for file in files)

        second = json.loads(run("submit", "long.yaml", "--json"))
        assert [job["id"] for job in json.loads(run("list", "--json"))] == [second["id"], first["id"]]
        assert second["id"] in run("cancel", second["id"])
        run("watch", second["id"], code=1)
        assert json.loads(run("show", second["id"], "--json"))["status"] == "cancelled"
        run("cancel", second["id"], code=5)
        run("show", "job_00000000000000000000000000", code=3)
    finally:
        run("down")
