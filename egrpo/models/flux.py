"""FLUX.1 and everything in its layout, over the components of diffusers' stock `FluxPipeline`.

What the pipeline does in `__call__` is taken apart here so that training can batch it freely: prompts are encoded once
and the text encoders dropped, position ids are made once, latents stay packed [B, N, C] and float32 between steps. For
the same prompt and seed the plain ODE gives the stock pipeline's image.

Axis letters: B batch, N image tokens, C packed channels, L text tokens, D text width, H W pixels.
"""

from __future__ import annotations

import gc
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import diffusers
import numpy as np
import torch
import transformers
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor, nn

from egrpo.errors import ModelError
from egrpo.schedule import shifted_sigmas

# Numbers in one activation of a forward, tokens times width. On CPU more than this no longer fits the caches and is
# slower (measured with tiny-flux-shapes: 30 to 200 images are alike); on a GPU it is 7 FLUX.1 images of 512 pixels.
_CPU_BATCH_VOLUME = 2**19
_CUDA_BATCH_VOLUME = 2**25
# Pixels decoded at once; measured likewise.
_CPU_DECODE_PIXELS = 2**17
_CUDA_DECODE_PIXELS = 2**21
_ENCODE_BATCH = 64
_DIGEST_LIMIT_BYTES = 2**30
_LARGE_MODEL_PARAMETERS = 10**9


@dataclass(frozen=True)
class PromptEmbeds:
    """Encoded prompts: `sequence_BLD` of T5 and `pooled_BD` of CLIP. Indexing selects rows."""

    sequence_BLD: Tensor
    pooled_BD: Tensor

    def __getitem__(self, rows: Tensor) -> PromptEmbeds:
        return PromptEmbeds(self.sequence_BLD[rows], self.pooled_BD[rows])

    def __len__(self) -> int:
        return len(self.pooled_BD)


class FluxAdapter:
    """A frozen FLUX model at one resolution: text in, velocity in the middle, images out."""

    def __init__(
        self, pipeline: FluxPipeline, *, height: int, width: int, max_sequence_length: int, digest: str | None
    ) -> None:
        self._pipeline = pipeline
        self.transformer: Any = pipeline.transformer
        self.vae: Any = pipeline.vae
        self.height, self.width = height, width
        self.max_sequence_length = max_sequence_length
        self.digest = digest
        self.device: torch.device = self.transformer.device
        self.dtype: torch.dtype = self.transformer.dtype
        scale: int = pipeline.vae_scale_factor * 2
        self._grid = (height // scale, width // scale)
        # Convolutions are up to 1.4 times as fast in this layout, on CPU as on GPU.
        self.vae.to(memory_format=torch.channels_last)
        self._img_ids = pipeline._prepare_latent_image_ids(1, *self._grid, self.device, self.dtype)
        self._txt_ids = torch.zeros(max_sequence_length, 3, device=self.device, dtype=self.dtype)
        self.transformer.pos_embed = _CachedPositions(self.transformer.pos_embed)

    @classmethod
    def load(
        cls,
        source: str,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        height: int | None = None,
        width: int | None = None,
        max_sequence_length: int | None = None,
    ) -> Self:
        """Returns the model of a `FluxPipeline` folder or repository, frozen. Safetensors only, no remote code.

        Height, width and text length default to the VAE's sample size and the second tokenizer's maximum.

        Raises:
            ModelError: the model is not there, is not FLUX, or the resolution does not fit its patches.
        """
        folder = Path(source)
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        try:
            pipeline = FluxPipeline.from_pretrained(
                source, revision=revision, dtype=dtype, use_safetensors=True, local_files_only=folder.is_dir()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ModelError(f"base model {source!r} cannot be loaded: {error}") from error
        pipeline.to(device or torch.device("cpu"))
        _freeze(pipeline)
        height, width = height or pipeline.vae.config.sample_size, width or pipeline.vae.config.sample_size
        _check(pipeline, source, height, width)
        length = max_sequence_length or min(512, pipeline.tokenizer_2.model_max_length)
        digest = revision or (_digest(folder) if folder.is_dir() else None)
        return cls(pipeline, height=height, width=width, max_sequence_length=length, digest=digest)

    @property
    def num_tokens(self) -> int:
        """Image tokens of one latent."""
        return self._grid[0] * self._grid[1]

    @property
    def micro_batch_size(self) -> int:
        """How many images pass the network at once, from the width of the model and the number of tokens."""
        volume = _CUDA_BATCH_VOLUME if self.device.type == "cuda" else _CPU_BATCH_VOLUME
        width: int = self.transformer.inner_dim * (self.num_tokens + self.max_sequence_length)
        return max(1, volume // width)

    @property
    def decode_batch_size(self) -> int:
        """How many images are decoded at once."""
        pixels = _CUDA_DECODE_PIXELS if self.device.type == "cuda" else _CPU_DECODE_PIXELS
        return max(1, pixels // (self.height * self.width))

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> PromptEmbeds:
        """Returns the embeddings of all prompts, by the pipeline's own encoding."""
        parts = []
        for start in range(0, len(prompts), _ENCODE_BATCH):
            sequence, pooled, _ = self._pipeline.encode_prompt(
                prompts[start : start + _ENCODE_BATCH],
                prompt_2=None,
                device=self.device,
                max_sequence_length=self.max_sequence_length,
            )
            parts.append((sequence, pooled))
        # Leaving inference mode needs a copy: these tensors take part in the policy's forward with gradients.
        with torch.inference_mode(False):
            return PromptEmbeds(torch.cat([s for s, _ in parts]).clone(), torch.cat([p for _, p in parts]).clone())

    def drop_text_encoders(self) -> None:
        """Frees the text encoders; `encode_prompts` cannot be called afterwards."""
        for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
            setattr(self._pipeline, name, None)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def initial_latents(self, seeds: list[int]) -> Tensor:
        """Returns noise float32 [B, N, C]; each row is what the stock pipeline draws from a generator of that seed."""
        channels = self.transformer.config.in_channels // 4
        rows, columns = 2 * self._grid[0], 2 * self._grid[1]
        draws = [
            torch.randn((1, channels, rows, columns), generator=torch.Generator().manual_seed(seed), dtype=self.dtype)
            for seed in seeds
        ]
        latents = self._pipeline._pack_latents(torch.cat(draws), len(seeds), channels, rows, columns)
        packed: Tensor = latents.to(self.device, torch.float32)
        return packed

    def sigmas(self, num_steps: int, shift: float | None = None) -> list[float]:
        """Returns the num_steps + 1 times of the pipeline's own scheduler, or of the paper's fixed shift."""
        if shift is not None:
            return shifted_sigmas(num_steps, shift)
        scheduler = self._pipeline.scheduler
        config = scheduler.config
        mu = calculate_shift(
            self.num_tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        if config.get("use_flow_sigmas"):
            scheduler.set_timesteps(num_steps, mu=mu)
        else:
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
        return [float(sigma) for sigma in scheduler.sigmas]

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C], one forward for the whole batch.

        `t` is the flow time, never truncated. Guidance is passed only where the model embeds it.
        """
        batch = len(x_BNC)
        # As the pipeline does: times 1000 and back in float32, so that the time embedding is the same to the bit.
        timestep = (torch.tensor(t, dtype=torch.float32, device=self.device) * 1000) / 1000
        strength = None
        if self.transformer.config.guidance_embeds:
            strength = torch.full((batch,), guidance, dtype=torch.float32, device=self.device)
        output: Tensor = self.transformer(
            hidden_states=x_BNC.to(self.dtype),
            timestep=timestep.expand(batch),
            guidance=strength,
            pooled_projections=embeds.pooled_BD,
            encoder_hidden_states=embeds.sequence_BLD,
            txt_ids=self._txt_ids,
            img_ids=self._img_ids,
            return_dict=False,
        )[0]
        return output.float()

    @torch.inference_mode()
    def decode(self, x_BNC: Tensor) -> Tensor:
        """Returns images float32 [B, 3, H, W] in [0, 1] of latents at t = 0."""
        unpacked = self._pipeline._unpack_latents(x_BNC, self.height, self.width, self._pipeline.vae_scale_factor)
        latents = unpacked / self.vae.config.scaling_factor + self.vae.config.shift_factor
        latents = latents.to(self.vae.dtype, memory_format=torch.channels_last)
        images: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)


class _CachedPositions(nn.Module):
    """Computes the rotary embedding of the position ids once: they are the same in every forward of a run."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._ids: Tensor | None = None
        self._rotary: Any = None

    def forward(self, ids: Tensor) -> Any:
        if self._ids is None or self._ids.shape != ids.shape or not torch.equal(self._ids, ids):
            with torch.inference_mode(False):
                self._ids, self._rotary = ids.clone(), self.inner(ids.clone())
        return self._rotary


def _freeze(pipeline: FluxPipeline) -> None:
    for component in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        component.requires_grad_(False)
        component.eval()
    if sum(p.numel() for p in pipeline.transformer.parameters()) > _LARGE_MODEL_PARAMETERS:
        pipeline.transformer.enable_gradient_checkpointing()


def _check(pipeline: FluxPipeline, source: str, height: int, width: int) -> None:
    patch = pipeline.vae_scale_factor * 2
    if height % patch or width % patch:
        raise ModelError(f"base model {source!r} needs height and width in multiples of {patch}, got {height}x{width}")
    if pipeline.scheduler.config.get("invert_sigmas") or pipeline.scheduler.config.get("stochastic_sampling"):
        raise ModelError(f"base model {source!r} has a scheduler with inverted times or noise, which no FLUX has")


def _digest(folder: Path) -> str | None:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    if sum(path.stat().st_size for path in files) > _DIGEST_LIMIT_BYTES:
        logging.getLogger(__name__).warning("model folder is above 1 GiB, so its digest is not computed: %s", folder)
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
