"""Builds `tiny-flux-shapes` from nothing: autoencoder, then text encoders and transformer, then the pipeline folder."""

import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from egrpo.tiny.autoencoder import train_vae
from egrpo.tiny.curve import LossCurve
from egrpo.tiny.flow import Cycle, FlowModel, as_pipeline, encode_pairs, load_model, train_flow

VAE_CROP_STEPS, VAE_FULL_STEPS = 3600, 700
FLOW_PAIRS = 48_000
# The second cycle is where the model comes to bind colours to shapes and shapes to places (strict accuracy on the
# example's prompts, 8 steps: 20 % before it, 86 % after). The third makes it doubt relations, as models drawn from the
# web do, whose captions are careless about "left of": so that alignment has something to teach.
FLOW_CYCLES = (
    Cycle(13_000, 3e-3, careful_share=0.6, relation_noise=0.45),
    Cycle(5000, 2e-3),
    Cycle(800, 1e-3, careful_share=0.0, relation_noise=0.6),
)


def build(output: Path, seed: int, scale: float = 1.0) -> None:
    """Trains the model and writes it as a `FluxPipeline` folder, with build.json and loss_curve.png beside it.

    About 100 minutes on two cores. `scale` shortens every stage, for trying the command out; 1 is the shipped model.
    What is finished in `output` is used again: the autoencoder, and every cycle of the flow model that its build.json
    shows to be complete.

    Raises:
        OSError: the folder cannot be written.
    """
    started_at, curve = time.monotonic(), LossCurve.read(output)
    if (output / "vae" / "config.json").exists():
        print(f"using the autoencoder in {output / 'vae'}", flush=True)
        vae = AutoencoderKL.from_pretrained(output / "vae").to(memory_format=torch.channels_last)
    else:
        vae = train_vae(seed, _scaled(VAE_CROP_STEPS, scale), _scaled(VAE_FULL_STEPS, scale), curve)
        vae.save_pretrained(output / "vae")
    _train_flow(output, vae, seed, scale, curve)
    print(f"{output} built in {(time.monotonic() - started_at) / 60:.0f} minutes", flush=True)


def _train_flow(output: Path, vae: AutoencoderKL, seed: int, scale: float, curve: LossCurve) -> None:
    def save(model: FlowModel) -> None:
        as_pipeline(model, vae).save_pretrained(output)
        halve(output / "transformer" / "diffusion_pytorch_model.safetensors")
        cycles = [asdict(cycle) for cycle in FLOW_CYCLES]
        settings = {"seed": seed, "scale": scale, "vae_steps": [VAE_CROP_STEPS, VAE_FULL_STEPS], "cycles": cycles}
        settings |= {"pairs": FLOW_PAIRS, "torch": torch.__version__}
        curve.write(output, settings)

    pairs = encode_pairs(vae, _scaled(FLOW_PAIRS, scale), np.random.default_rng(seed))
    torch.manual_seed(seed)
    model = FlowModel()
    for number, cycle in enumerate(FLOW_CYCLES, start=1):
        stage, cycle = f"flow {number}", replace(cycle, steps=_scaled(cycle.steps, scale))
        if curve.finished(stage, cycle.steps):
            print(f"using the model of {stage} in {output}", flush=True)
        else:
            torch.manual_seed(seed + number)
            save(train_flow(model, pairs, cycle, stage, curve, save))
        model = load_model(output)  # from the file in both cases, so that a build in parts is the same build


def _scaled(steps: int, scale: float) -> int:
    return max(1, round(scale * steps))


def halve(path: Path) -> None:
    """Rounds a file of weights to float16: half the package; diffusers loads it as float32 unless told otherwise."""
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
