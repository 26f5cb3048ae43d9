"""Builds `tiny-flux-shapes` from nothing: autoencoder, then text encoders and transformer, then the pipeline folder."""

import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from egrpo.tiny.autoencoder import train_vae
from egrpo.tiny.curve import LossCurve
from egrpo.tiny.flow import as_pipeline, train_flow
from egrpo.tiny.world import RELATION_NOISE

VAE_CROP_STEPS, VAE_FULL_STEPS = 3600, 700
FLOW_PAIRS, FLOW_STEPS = 32_000, 6000


def build(output: Path, seed: int, scale: float = 1.0) -> None:
    """Trains the model and writes it as a `FluxPipeline` folder, with build.json and loss_curve.png beside it.

    About 45 minutes on two cores. `scale` shortens every stage, for trying the command out; 1 is the shipped model.
    A finished autoencoder in `output/vae` is used again, so a build that was stopped later goes on from there.

    Raises:
        OSError: the folder cannot be written.
    """
    started_at, curve = time.monotonic(), LossCurve()
    steps = {name: max(1, round(scale * value)) for name, value in _SETTINGS.items()}
    if (output / "vae" / "config.json").exists():
        print(f"using the autoencoder in {output / 'vae'}", flush=True)
        vae = AutoencoderKL.from_pretrained(output / "vae").to(memory_format=torch.channels_last)
    else:
        vae = train_vae(seed, steps["vae_crop_steps"], steps["vae_full_steps"], curve)
        vae.save_pretrained(output / "vae")
    model = train_flow(vae, seed, steps["flow_pairs"], steps["flow_steps"], curve)
    as_pipeline(model, vae).save_pretrained(output)
    halve(output / "transformer" / "diffusion_pytorch_model.safetensors")
    settings = {"seed": seed, **steps, "relation_noise": RELATION_NOISE, "torch": torch.__version__}
    curve.write(output, settings)
    print(f"{output} built in {(time.monotonic() - started_at) / 60:.0f} minutes", flush=True)


_SETTINGS = {
    "vae_crop_steps": VAE_CROP_STEPS,
    "vae_full_steps": VAE_FULL_STEPS,
    "flow_pairs": FLOW_PAIRS,
    "flow_steps": FLOW_STEPS,
}


def halve(path: Path) -> None:
    """Rounds a file of weights to float16: half the package; diffusers loads it as float32 unless told otherwise."""
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
