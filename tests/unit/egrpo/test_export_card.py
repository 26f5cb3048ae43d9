"""The model card: what it says is so, what it links to is there, and its code draws the published image."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from egrpo_runs import Constant, Redness, short_spec, stop_after
from families import all_families
from PIL import Image

from egrpo.config import HubModel
from egrpo.errors import StopRequested
from egrpo.evaluate import WeightedReward
from egrpo.events import file_entries
from egrpo.export.base_model import BaseModel, describe
from egrpo.export.card import CardFacts
from egrpo.export.code import _GUIDANCE, FOLDER, sampling_code
from egrpo.models import FAMILIES, family_of
from egrpo.train import train

REWARDS = [WeightedReward(Redness(), 1.0), WeightedReward(Constant(), 0.0)]
FORMATS = ["diffusers", "peft", "comfyui"]


def run(model: Path, output: Path, **sections: Any) -> Path:
    """Trains, stopped once and resumed; returns the folder of the adapter."""
    spec = short_spec(model, name="posters\nv3", **sections)
    with pytest.raises(StopRequested):
        train(spec, output, rewards=REWARDS, check_stop=stop_after(60))
    train(spec, output, rewards=REWARDS, resume=True)
    return output / "adapter"


@pytest.fixture(scope="module")
def adapter(random_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (random_flux / "README.md").write_text("---\nlicense: other\nlicense_name: Flux Test License\n---\n# A model\n")
    return run(random_flux, tmp_path_factory.mktemp("cards") / "lora", export={"formats": FORMATS})


def front_matter(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---")[1])
    return found


def code_in(card: str, folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert FOLDER in code
    return str(code).replace(FOLDER, str(folder))


def drawn_by(code: str) -> np.ndarray[Any, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return np.asarray(names["image"]).astype(int)


def test_the_front_matter_is_the_hubs(adapter: Path) -> None:
    matter = front_matter((adapter / "README.md").read_text())
    assert matter["license"] == "other"
    assert matter["license_name"] == "flux-test-license"
    assert matter["library_name"] == "diffusers"
    assert matter["pipeline_tag"] == "text-to-image"
    assert {"lora", "egrpo", "flux"} < set(matter["tags"])
    assert "base_model" not in matter  # a folder of this machine has no page to link to
    assert all((adapter / entry["output"]["url"]).is_file() for entry in matter["widget"])


def test_the_code_draws_the_published_image(adapter: Path) -> None:
    sample = np.asarray(Image.open(adapter.parent / "samples" / "step-000004" / "000.png")).astype(int)
    drawn = drawn_by(code_in((adapter / "README.md").read_text(), adapter))
    assert np.abs(drawn - sample).max() <= 1  # of 255: rounding


def test_the_code_loads_a_file_that_is_there(random_flux: Path) -> None:
    spec = short_spec(random_flux)
    facts = CardFacts(
        spec=spec,
        base=BaseModel("a/b", "a/b", "0" * 40),
        family="flux",
        pipeline="FluxPipeline",
        transformer="FluxTransformer2DModel",
        height=32,
        width=32,
        max_sequence_length=12,
        plan={},
        report={},
        prompts=["a red circle"],
        files=["peft/adapter_config.json", "peft/adapter_model.safetensors"],
        images=[],
        pictures={},
    )
    code = sampling_code(facts)
    compile(code, "card", "exec")
    assert f'PeftModel.from_pretrained(pipeline.transformer, "{FOLDER}/peft")' in code
    assert f'FluxPipeline.from_pretrained("a/b", revision="{"0" * 40}")' in code
    assert "load_lora_weights" not in code
    assert "The file here is for ComfyUI" in sampling_code(replace(facts, files=["comfyui_lora.safetensors"]))


def test_the_code_of_a_full_fine_tune_draws_the_published_image(random_flux: Path, tmp_path: Path) -> None:
    training = {"mode": "full", "lora": None, "learning_rate": 1e-3}
    folder = run(random_flux, tmp_path / "full", training=training, method={"shift": None})
    sample = np.asarray(Image.open(tmp_path / "full" / "samples" / "step-000004" / "000.png")).astype(int)
    card = (folder / "README.md").read_text()
    assert "lora" not in front_matter(card)["tags"]
    assert np.abs(drawn_by(code_in(card, folder)) - sample).max() <= 1


def test_what_it_says_is_in_the_report(adapter: Path) -> None:
    card, report = (adapter / "README.md").read_text(), json.loads((adapter.parent / "report.json").read_text())
    assert "\n# posters v3\n" in card
    for before, after in [(report["eval_reward_before"], report["eval_reward_after"]), (0.25, 0.25)]:
        assert f"| {before:.3f} | {after:.3f} |" in card
    assert report["spec_digest"] in card
    assert report["model_digest"] in card
    assert "| 0 → " in card
    assert "rank, alpha: 2, 5" in card
    assert "Flux Test License" in card


def test_all_files_are_announced_and_all_links_lead_somewhere(adapter: Path) -> None:
    card = (adapter / "README.md").read_text()
    assert all((adapter / link).is_file() for link in re.findall(r"!\[.*?\]\((.*?)\)", card))
    for name in ("pytorch_lora_weights.safetensors", "peft/adapter_model.safetensors", "comfyui_lora.safetensors"):
        assert f"`{name}`" in card
        assert (adapter / name).is_file()


def test_a_run_that_was_stopped_writes_the_same_folder(adapter: Path, random_flux: Path, tmp_path: Path) -> None:
    spec = short_spec(random_flux, name="posters\nv3", export={"formats": FORMATS})
    train(spec, tmp_path, rewards=REWARDS)
    names = sorted(str(path.relative_to(adapter)) for path in adapter.rglob("*.*"))
    assert file_entries(tmp_path / "adapter", names) == file_entries(adapter, names)


@pytest.mark.parametrize("pipeline", sorted(FAMILIES))
def test_the_stock_pipelines_take_every_argument(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    found = family_of(str(tmp_path), None)
    guidance = _GUIDANCE.get(found.family, "guidance_scale").split(" ")[-1]
    assert {guidance} == {case.guidance_argument for case in all_families() if case.pipeline == pipeline}
    wanted = {guidance, "num_inference_steps", "height", "width", "max_sequence_length", "generator"}
    assert wanted <= set(inspect.signature(found.pipeline_class.__call__).parameters)


def test_what_is_known_of_a_base_model(tmp_path: Path) -> None:
    assert describe("tiny-flux-shapes") == BaseModel("tiny-flux-shapes", licence="Apache-2.0", is_bundled=True)
    assert describe("tiny-flux-shapes").hub_licence == {"license": "apache-2.0"}
    hub = HubModel(repo="a-company/a-model", revision="0" * 40)
    assert describe(hub) == BaseModel("a-company/a-model", "a-company/a-model", "0" * 40)
    assert describe(hub).hub_licence == {"license": "unknown"}
    assert describe(str(tmp_path)).licence is None
    for card, licence in [("# none", None), ("---\nlicense: mit\n---\n", "mit"), ("---\n- a: [\n---\n", None)]:
        (tmp_path / "README.md").write_text(card)
        assert describe(str(tmp_path)).licence == licence
