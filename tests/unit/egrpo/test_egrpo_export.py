"""The exported adapter, loaded by stock diffusers, gives the trainer's own image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from peft import PeftModel

from egrpo.config import LoRASpec
from egrpo.errors import ConfigError
from egrpo.export import export_adapter
from egrpo.export.adapter import FILE
from egrpo.export.base_model import BaseModel
from egrpo.lora import add_adapter, folded_weights, target_modules
from egrpo.models.flux import FluxAdapter
from egrpo.rollout import Sampler

SETS = FluxAdapter.lora_target_sets


def trained(folder: Path, rank: int, alpha: float, targets: str) -> FluxAdapter:
    """A model with an adapter that does something."""
    model = FluxAdapter.load(str(folder))
    parameters = add_adapter(model, LoRASpec(rank=rank, alpha=alpha), targets, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in parameters:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def trainers_image(model: FluxAdapter) -> torch.Tensor:
    """What the trainer draws in an evaluation."""
    embeds = model.encode_prompts(["a red circle"])
    with folded_weights(model.transformer):
        latents = Sampler(model, 3.5, 8).ode(model.initial_latents([9]), model.sigmas(4), embeds, torch.tensor([0]))
    return model.decode(latents)


def stock(folder: Path) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


CASES = pytest.mark.parametrize(
    ("rank", "alpha", "targets"), [(4, 4.0, "attention"), (4, 16.0, "attention_mlp"), (8, 3.0, "all")]
)


@CASES
def test_stock_diffusers_draws_the_trainers_image(
    random_flux: Path, tmp_path: Path, rank: int, alpha: float, targets: str
) -> None:
    model = trained(random_flux, rank, alpha, targets)
    ours = trainers_image(model)
    assert export_adapter(model, tmp_path) == [FILE]
    pipeline = stock(random_flux)
    without = draw(pipeline)
    pipeline.load_lora_weights(str(tmp_path), weight_name=FILE)
    assert float((draw(pipeline) - ours).abs().max()) < 1e-4
    assert float((without - ours).abs().max()) > 20 * 1e-4


@CASES
def test_stock_peft_draws_the_trainers_image(
    random_flux: Path, tmp_path: Path, rank: int, alpha: float, targets: str
) -> None:
    model = trained(random_flux, rank, alpha, targets)
    names = export_adapter(model, tmp_path, ["peft"], BaseModel("a/b", "a/b", "0" * 40))
    assert names == ["peft/adapter_config.json", "peft/adapter_model.safetensors"]
    config = json.loads((tmp_path / names[0]).read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("a/b", "0" * 40)
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (rank, alpha, "LORA")
    pipeline = stock(random_flux)
    pipeline.transformer = PeftModel.from_pretrained(pipeline.transformer, tmp_path / "peft")
    assert float((draw(pipeline) - trainers_image(model)).abs().max()) < 1e-4
    with pipeline.transformer.disable_adapter():
        assert float((draw(pipeline) - trainers_image(model)).abs().max()) > 20 * 1e-4


def draw(pipeline: FluxPipeline) -> torch.Tensor:
    images: torch.Tensor = pipeline(
        "a red circle",
        height=32,
        width=32,
        num_inference_steps=4,
        guidance_scale=3.5,
        max_sequence_length=12,
        generator=torch.Generator().manual_seed(9),
        output_type="pt",
    ).images
    return images


def test_target_sets(random_flux: Path) -> None:
    transformer = FluxAdapter.load(str(random_flux)).transformer
    attention, mlp, everything = (target_modules(transformer, s, SETS) for s in ("attention", "attention_mlp", "all"))
    assert set(attention) < set(mlp) < set(everything)
    assert "transformer_blocks.0.attn.to_out.0" in attention
    assert "single_transformer_blocks.0.proj_out" in mlp
    assert "proj_out" not in mlp
    assert "proj_out" in everything
    assert len(attention) == 8 + 3
    assert target_modules(transformer, ["to_q"], SETS) == [
        "single_transformer_blocks.0.attn.to_q",
        "transformer_blocks.0.attn.to_q",
    ]


def test_a_target_that_fits_nothing_is_named(random_flux: Path) -> None:
    transformer = FluxAdapter.load(str(random_flux)).transformer
    with pytest.raises(ConfigError, match=r"'to_x' fits no linear layer; allowed: .*attn\.to_q"):
        target_modules(transformer, ["to_q", "to_x"], SETS)


def test_the_same_adapter_is_the_same_files_in_every_process(random_flux: Path, tmp_path: Path) -> None:
    """Hashes are seeded anew in every process, and both peft's targets and safetensors' metadata hang on them."""
    code = (
        "import sys; from pathlib import Path; from egrpo.config import LoRASpec; from egrpo.lora import add_adapter;"
        "from egrpo.export import export_adapter; from egrpo.models.flux import FluxAdapter;"
        "model = FluxAdapter.load(sys.argv[1]); add_adapter(model, LoRASpec(rank=2), 'all', seed=0);"
        "[export_adapter(model, Path(sys.argv[2]) / str(n), ['diffusers', 'peft', 'comfyui']) for n in range(4)]"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-c", code, str(random_flux), str(tmp_path / seed)],
            check=True,
            timeout=240,
            env=environment,
        )
    folders = [tmp_path / seed / str(n) for seed in ("1", "2") for n in range(4)]
    names = {str(path.relative_to(folders[0])) for path in folders[0].rglob("*.*")}
    assert names == {FILE, "comfyui_lora.safetensors", "peft/adapter_config.json", "peft/adapter_model.safetensors"}
    for name in names:
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name
