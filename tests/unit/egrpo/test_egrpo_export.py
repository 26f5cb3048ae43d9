"""The exported adapter, loaded by stock diffusers, gives the trainer's own image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from egrpo.config import LoRASpec
from egrpo.errors import ConfigError
from egrpo.export import FILE, export_adapter
from egrpo.lora import add_adapter, folded_weights, target_modules
from egrpo.models.flux import FluxAdapter
from egrpo.rollout import Sampler

SETS = FluxAdapter.lora_target_sets


@pytest.mark.parametrize("targets", ["attention", "attention_mlp", "all"])
@pytest.mark.parametrize(("rank", "alpha"), [(4, 4.0), (4, 16.0), (8, 3.0)])
def test_stock_diffusers_draws_the_trainers_image(
    random_flux: Path, tmp_path: Path, rank: int, alpha: float, targets: str
) -> None:
    model = FluxAdapter.load(str(random_flux))
    parameters = add_adapter(model, LoRASpec(rank=rank, alpha=alpha), targets, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in parameters:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    embeds = model.encode_prompts(["a red circle"])
    with folded_weights(model.transformer):
        latents = Sampler(model, 3.5, 8).ode(model.initial_latents([9]), model.sigmas(4), embeds, torch.tensor([0]))
    ours = model.decode(latents)
    assert export_adapter(model, tmp_path) == [FILE]

    pipeline = FluxPipeline.from_pretrained(random_flux, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    without = draw(pipeline)
    pipeline.load_lora_weights(str(tmp_path), weight_name=FILE)
    assert float((draw(pipeline) - ours).abs().max()) < 1e-4
    assert float((without - ours).abs().max()) > 20 * 1e-4


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


def test_the_same_adapter_is_the_same_file_in_every_process(random_flux: Path, tmp_path: Path) -> None:
    """Hashes are seeded anew in every process, and both peft's targets and safetensors' metadata hang on them."""
    code = (
        "import sys; from pathlib import Path; from egrpo.config import LoRASpec; from egrpo.lora import add_adapter;"
        "from egrpo.export import export_adapter; from egrpo.models.flux import FluxAdapter;"
        "model = FluxAdapter.load(sys.argv[1]); add_adapter(model, LoRASpec(rank=2), 'all', seed=0);"
        "[export_adapter(model, Path(sys.argv[2]) / str(n)) for n in range(4)]"
    )
    files = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-c", code, str(random_flux), str(folder)], check=True, timeout=240, env=environment
        )
        files += [(folder / str(n) / FILE).read_bytes() for n in range(4)]
    assert len(set(files)) == 1
