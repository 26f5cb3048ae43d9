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


def build(output: Path, seed: int, scale: float = 1.0, resume: bool = False) -> None:
    """Trains the model and writes it as a `FluxPipeline` folder, with build.json and loss_curve.png beside it.

    About two hours on two cores. `scale` shortens every stage, for trying the command out; 1 is the shipped model.
    With `resume`, the stages (autoencoder, cycles of the flow model) that are finished in `output` are used again; the
    model comes out the same.

    Raises:
        OSError: the folder cannot be written.
        ValueError: `resume`, and what lies in `output` was built with other settings.
    """
    started_at = time.monotonic()
    vae_steps = _scaled(VAE_CROP_STEPS, scale), _scaled(VAE_FULL_STEPS, scale)
    cycles = [replace(cycle, steps=_scaled(cycle.steps, scale)) for cycle in FLOW_CYCLES]
    num_pairs = _scaled(FLOW_PAIRS, scale)
    settings: dict[str, object] = {"seed": seed, "vae_steps": vae_steps, "pairs": num_pairs}
    settings["cycles"] = [asdict(cycle) for cycle in cycles]
    curve = LossCurve.read(output, settings) if resume else LossCurve()
    settings["torch"] = torch.__version__

    if curve.finished("autoencoder", sum(vae_steps)):
        vae = AutoencoderKL.from_pretrained(output / "vae").to(memory_format=torch.channels_last)
    else:
        vae = train_vae(seed, *vae_steps, curve)
        vae.save_pretrained(output / "vae")
        curve.write(output, settings)
    pairs = encode_pairs(vae, num_pairs, np.random.default_rng(seed))
    torch.manual_seed(seed)
    model = FlowModel()
    for number, cycle in enumerate(cycles, start=1):
        stage = f"flow {number}"
        if curve.finished(stage, cycle.steps):
            continue
        if number > 1:  # from the file even when it was trained just now: a build in parts is the same build
            model = load_model(output)
        average = train_flow(model, pairs, cycle, seed + number, stage, curve)
        as_pipeline(average, vae).save_pretrained(output)
        halve(output / "transformer" / "diffusion_pytorch_model.safetensors")
        curve.write(output, settings)
    print(f"{output} built in {(time.monotonic() - started_at) / 60:.0f} minutes", flush=True)


def _scaled(steps: int, scale: float) -> int:
    return max(1, round(scale * steps))


def halve(path: Path) -> None:
    """Rounds a file of weights to float16: half the package; diffusers loads it as float32 unless told otherwise."""
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
