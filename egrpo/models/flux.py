"""FLUX.1 and everything in its layout, over the components of diffusers' stock `FluxPipeline`.

Position ids are made once and latents stay packed between steps. Guidance is passed only where the model embeds it:
FLUX.1-dev does, FLUX.1-schnell does not.

Axis letters: B batch, N image tokens, C packed channels, L text tokens, D text width, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FluxPipeline
from torch import Tensor, nn

from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.models.dynamic_shift import scheduler_sigmas
from egrpo.schedule import shifted_sigmas

_ATTENTION = r"\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_MLP = r"(\.ff|\.ff_context)\.net\.(0\.proj|2)|^single_transformer_blocks\.\d+\.(proj_mlp|proj_out)"


class FluxAdapter(ModelAdapter):
    """FLUX.1. Embeddings: `sequence_BLD` of T5 and `pooled_BD` of CLIP."""

    family: ClassVar[str] = "flux"
    pipeline_class: ClassVar[type[Any]] = FluxPipeline
    text_components: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    lora_target_sets: ClassVar[Mapping[str, str]] = {
        "attention": rf"({_ATTENTION})$",
        "attention_mlp": rf"({_ATTENTION}|{_MLP})$",
        "all": r"",
    }

    def __init__(self, pipeline: Any, *, height: int, width: int, max_sequence_length: int, digest: str | None) -> None:
        super().__init__(pipeline, height=height, width=width, max_sequence_length=max_sequence_length, digest=digest)
        multiple = self.pixel_multiple(pipeline)
        self._grid = (height // multiple, width // multiple)
        self._img_ids = pipeline._prepare_latent_image_ids(1, *self._grid, self.device, self.dtype)
        self._txt_ids = torch.zeros(max_sequence_length, 3, device=self.device, dtype=self.dtype)
        self.transformer.pos_embed = _CachedPositions(self.transformer.pos_embed)

    @classmethod
    def default_size(cls, pipeline: Any) -> tuple[int, int]:
        """The VAE's sample size: 1024 for FLUX.1."""
        return pipeline.vae.config.sample_size, pipeline.vae.config.sample_size

    @classmethod
    def default_sequence_length(cls, pipeline: Any) -> int:
        """The second tokenizer's maximum, 512 at most: the pipeline's own limit."""
        return int(min(512, pipeline.tokenizer_2.model_max_length))

    @classmethod
    def pixel_multiple(cls, pipeline: Any) -> int:
        """8 of the autoencoder, 2 of the packing."""
        return int(pipeline.vae_scale_factor * 2)

    @property
    def num_tokens(self) -> int:
        """Image tokens of one latent."""
        return self._grid[0] * self._grid[1]

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        sequence, pooled, _ = self._pipeline.encode_prompt(
            prompts, prompt_2=None, device=self.device, max_sequence_length=self.max_sequence_length
        )
        return {"sequence_BLD": sequence, "pooled_BD": pooled}

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
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
        uniform = (
            None if scheduler.config.get("use_flow_sigmas") else np.linspace(1.0, 1 / num_steps, num_steps).tolist()
        )
        return scheduler_sigmas(scheduler, num_steps, self.num_tokens, uniform)

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C], one forward for the whole batch."""
        batch = len(x_BNC)
        # As the pipeline does: times 1000 in float32, then the model's dtype, then back, so that the time embedding is
        # the same to the bit.
        timestep = (torch.tensor(t, dtype=torch.float32, device=self.device) * 1000).to(self.dtype) / 1000
        strength = None
        if self.transformer.config.guidance_embeds:
            strength = torch.full((batch,), guidance, dtype=torch.float32, device=self.device)
        output: Tensor = self.transformer(
            hidden_states=x_BNC.to(self.dtype),
            timestep=timestep.expand(batch),
            guidance=strength,
            pooled_projections=embeds.tensors["pooled_BD"],
            encoder_hidden_states=embeds.tensors["sequence_BLD"],
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
