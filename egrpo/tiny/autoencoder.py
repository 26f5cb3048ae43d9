"""Trains the autoencoder of `tiny-flux-shapes`.

The world is mostly background and the network is convolutional, so most updates see 32x32 crops around a thing, at a
quarter of the cost; the last ones see whole images, whose borders the crops do not show. Axis letters: B batch,
C channel, H rows, W columns.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from egrpo.tiny.architecture import make_vae
from egrpo.tiny.curve import LossCurve
from egrpo.tiny.world import place, render, sample_caption

KL_WEIGHT = 5e-4  # per latent dimension, beside a mean absolute error per pixel
CROP = 32


def draw_images(num: int, rng: np.random.Generator) -> torch.Tensor:
    """Returns drawn images: uint8 [B, 3, H, W]."""
    return torch.from_numpy(np.stack([render(place(sample_caption(rng), rng)) for _ in range(num)])).permute(0, 3, 1, 2)


def as_input(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Maps uint8 [0, 255] to float32 [-1, 1], in the memory order that convolutions on CPU like."""
    return (images_BCHW.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _crops(images_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cuts one crop from each image, every second one of them centred on something that is not background."""
    corners = torch.randint(0, images_BCHW.shape[-1] - CROP + 1, (len(images_BCHW), 2), generator=generator)
    for index, image in enumerate(images_BCHW):
        inside = (image.min(0).values < 200).nonzero()
        if len(inside):
            pick = inside[int(torch.randint(0, len(inside), (), generator=generator))]
            jitter = torch.randint(-8, 9, (2,), generator=generator)
            corners[index] = (pick - CROP // 2 + jitter).clamp(0, image.shape[-1] - CROP)
    return torch.stack(
        [image[:, y : y + CROP, x : x + CROP] for image, (y, x) in zip(images_BCHW, corners.tolist(), strict=True)]
    )


def train_vae(seed: int, crop_steps: int, full_steps: int, curve: LossCurve, batch_size: int = 32) -> AutoencoderKL:
    """Trains an autoencoder from nothing and fits its scaling and shift to latents of mean 0 and deviation 1."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    images = draw_images(12_000, rng)
    vae = make_vae().to(memory_format=torch.channels_last)
    total = crop_steps + full_steps
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3, weight_decay=1e-4, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=total, pct_start=0.05, final_div_factor=100
    )
    for step in range(total):
        batch = images[torch.randint(0, len(images), (batch_size,), generator=generator)]
        x = as_input(_crops(batch, generator) if step < crop_steps else batch)
        posterior = vae.encode(x).latent_dist
        reconstruction = vae.decode(posterior.sample(generator=generator)).sample
        error = functional.l1_loss(reconstruction, x) + functional.mse_loss(reconstruction, x)
        loss = error + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.add("autoencoder", step, float(error.detach()), total)
    _fit_scaling(vae, as_input(images[:512]))
    return vae.eval()


def _fit_scaling(vae: AutoencoderKL, x_BCHW: torch.Tensor) -> None:
    with torch.inference_mode():
        latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in torch.split(x_BCHW, 64)])
    vae.register_to_config(scaling_factor=1 / float(latents.std()), shift_factor=float(latents.mean()))
