"""What is refused when a base model is loaded, and what the user is told to do, from folders and from a hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_hub import REVISION, fake_hub

from egrpo.errors import ModelError
from egrpo.models import family_of
from egrpo.models.flux import FluxAdapter

# Loads the repositories that it is told on standard input and says of each what came of it: hub settings are read once,
# at import.
LOAD = """
import json, sys, time
from egrpo.errors import ModelError
from egrpo.models import family_of
import egrpo.models.flux
print("ready", flush=True)
for line in sys.stdin:
    repo, revision = line.split()
    began = time.monotonic()
    try:
        model = family_of(repo, revision).load(repo, revision=revision)
        model.encode_prompts(["a red circle"])
        said = {"code": None, "digest": model.digest}
    except ModelError as error:
        said = {"code": error.code, "exit_code": error.exit_code, "message": str(error)}
    print(json.dumps({**said, "seconds": time.monotonic() - began}), flush=True)
"""


class Loader:
    """Another process, which knows of one hub only."""

    def __init__(self, endpoint: str, home: Path) -> None:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "EGRPO_CACHE": str(home / "cache")}
        environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-c", LOAD]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, **pipes)
        self._read()

    def __call__(self, repo: str, revision: str = REVISION) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(repo, revision, file=self._process.stdin, flush=True)
        said: dict[str, Any] = json.loads(self._read())
        return said

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the loading process has ended"
        return line


@pytest.fixture(scope="module")
def hub(random_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What loading each of a few repositories said."""
    root, home = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("hub-home")
    shutil.copytree(random_flux, root / "some" / "flux")
    shutil.copytree(random_flux, root / "some" / "pickles")
    for path in (root / "some" / "pickles").rglob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    for name, content in (("empty", None), ("video", {"_class_name": "WanPipeline"})):
        (root / "some" / name).mkdir()
        if content is not None:
            (root / "some" / name / "model_index.json").write_text(json.dumps(content))
    with fake_hub(root) as endpoint:
        load_repo = Loader(endpoint, home)
        said = {name: load_repo(f"some/{name}") for name in ("gated", "nothing", "empty", "video", "pickles", "flux")}
        said["revision"] = load_repo("some/flux", "f" * 40)
    # The hub is gone: what was cached still loads, the rest says what is missing.
    said |= {f"offline-{name}": load_repo(f"some/{name}") for name in ("gated", "pickles", "flux")}
    load_repo.close()
    return said


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("gated", ["'some/gated' is gated", "accept its licence at http://127.0.0.1", "hf auth login"]),
        ("nothing", ["no such folder, and no such repository", "run hf auth login if the repository is private"]),
        ("empty", ["no model_index.json", "a diffusers pipeline"]),
        ("video", ["names the pipeline 'WanPipeline'", "FluxPipeline"]),
        ("pickles", ["safetensors"]),
        ("revision", [f"no revision '{'f' * 40}'", "40 hex digits"]),
        ("offline-gated", ["cannot be reached", f"hf download some/gated --revision {REVISION}"]),
        ("offline-pickles", ["cannot be reached", "hf download some/pickles"]),
    ],
)
def test_what_a_hub_refuses(case: str, words: list[str], hub: dict[str, dict[str, Any]]) -> None:
    said = hub[case]
    assert said["code"] == ("model_gated" if case == "gated" else "model_unavailable")
    assert said["exit_code"] == (77 if case == "gated" else 66)
    assert [word for word in words if word not in said["message"]] == []
    assert said["seconds"] < 10


@pytest.mark.parametrize("case", ["flux", "offline-flux"])
def test_a_repository_loads_with_and_then_without_the_hub(case: str, hub: dict[str, dict[str, Any]]) -> None:
    assert hub[case]["code"] is None, hub[case]
    assert hub[case]["digest"] == REVISION


def changed(random_flux: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_flux, tmp_path / "model"))


def load(folder: Path) -> None:
    family_of(str(folder), None).load(str(folder)).encode_prompts(["a red circle"])


def edit_index(folder: Path, **entries: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize("component", ["transformer", "text_encoder_2"])
def test_pickles_are_refused_before_they_are_read(component: str, random_flux: Path, tmp_path: Path) -> None:
    folder = changed(random_flux, tmp_path)
    for path in (folder / component).glob("*.safetensors"):
        path.unlink()
    torch.save({}, folder / component / "pytorch_model.bin")
    message = rf"'{component}' has weights as pickles \(pytorch_model\.bin\).*allowed: \*\.safetensors.*safe_serial"
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize("component", ["vae", "tokenizer_2", "scheduler"])
def test_a_missing_component_is_named(component: str, random_flux: Path, tmp_path: Path) -> None:
    folder = changed(random_flux, tmp_path)
    shutil.rmtree(folder / component)
    with pytest.raises(ModelError, match=rf"its component '{component}' \(.*\) is missing: there is no folder"):
        load(folder)


def test_a_component_without_weights_is_named(random_flux: Path, tmp_path: Path) -> None:
    folder = changed(random_flux, tmp_path)
    next((folder / "transformer").glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match=r"its component 'transformer' has no weights"):
        load(folder)


def test_a_missing_shard_is_named(random_flux: Path, tmp_path: Path) -> None:
    """As an interrupted download leaves it."""
    folder = changed(random_flux, tmp_path)
    FluxAdapter.load(str(folder)).transformer.save_pretrained(folder / "transformer", max_shard_size="100KB")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    load(folder)
    shard = max((folder / "transformer").glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(ModelError, match=rf"its component 'transformer' is not whole: missing {shard.name}"):
        load(folder)


def test_code_of_the_models_own_is_refused(random_flux: Path, tmp_path: Path) -> None:
    folder = changed(random_flux, tmp_path)
    edit_index(folder, transformer=["my_transformer", "MyTransformer"])
    (folder / "transformer" / "my_transformer.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises(ModelError, match=r"code of the model's own \(the components \['transformer'\]\); allowed"):
        load(folder)
    edit_index(folder, _class_name=["pipeline", "FluxPipeline"])
    with pytest.raises(ModelError, match="code of the model's own"):
        load(folder)


def test_another_pipeline_is_named(random_flux: Path, tmp_path: Path) -> None:
    folder = changed(random_flux, tmp_path)
    edit_index(folder, _class_name="StableDiffusionXLPipeline")
    with pytest.raises(ModelError, match=r"names the pipeline 'StableDiffusionXLPipeline'; allowed: .*'FluxPipeline'"):
        load(folder)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_index_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(ModelError, match=r"its model_index\.json (cannot be read|is no JSON object)"):
        load(tmp_path)
