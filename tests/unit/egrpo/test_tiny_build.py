"""The command that trains the model: it writes what diffusers loads, and goes on where it was stopped."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline

from egrpo.tiny import build as building
from egrpo.tiny.build import FLOW_CYCLES, build
from egrpo.tiny.curve import LossCurve

SCALE = 0.0003
WEIGHTS = Path(building.__file__).parent / "weights"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped autoencoder for a trained one, and no compiler: compiling takes longer than these few updates."""

    def shipped_vae(_seed: int, crop_steps: int, full_steps: int, curve: LossCurve) -> AutoencoderKL:
        curve.add("autoencoder", crop_steps + full_steps - 1, 1.0, crop_steps + full_steps)
        return AutoencoderKL.from_pretrained(WEIGHTS / "vae")

    monkeypatch.setattr(building, "train_vae", shipped_vae)
    monkeypatch.setenv("PATH", "")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # bfloat16 norms without the compiler
def test_a_build_in_parts_is_the_same_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "whole", seed=3, scale=SCALE)
    pipeline = FluxPipeline.from_pretrained(tmp_path / "whole", local_files_only=True)
    assert pipeline.transformer.dtype == torch.float32
    assert len(files(tmp_path / "whole")) == 4

    stages: list[str] = []
    train_flow, last = building.train_flow, f"flow {len(FLOW_CYCLES)}"

    def stop_once_before_the_last_cycle(*arguments):
        stages.append(arguments[4])
        if stages.count(last) == 1 and stages[-1] == last:
            raise KeyboardInterrupt
        return train_flow(*arguments)

    monkeypatch.setattr(building, "train_flow", stop_once_before_the_last_cycle)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "parts", seed=3, scale=SCALE)
    assert files(tmp_path / "parts") != files(tmp_path / "whole")
    build(tmp_path / "parts", seed=3, scale=SCALE, resume=True)
    assert stages == ["flow 1", "flow 2", "flow 3", "flow 3"]
    assert files(tmp_path / "parts") == files(tmp_path / "whole")

    curves = json.loads((tmp_path / "parts" / "build.json").read_text())["loss"]
    assert list(curves) == ["autoencoder", "flow 1", "flow 2", "flow 3"]
    with pytest.raises(ValueError, match=r"build\.json is of another build: seed 3, not 4\. Build without --resume"):
        build(tmp_path / "parts", seed=4, scale=SCALE, resume=True)


def test_the_shipped_model_is_the_one_that_the_command_describes() -> None:
    shipped = json.loads((WEIGHTS / "build.json").read_text())
    cycles = [(cycle["steps"], cycle["learning_rate"]) for cycle in shipped["cycles"]]
    assert cycles == [(cycle.steps, cycle.learning_rate) for cycle in FLOW_CYCLES]
    assert [rows[-1][0] for rows in shipped["loss"].values()] == [4300, 13_000, 5000, 800]
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*.*")) < 20 * 2**20
