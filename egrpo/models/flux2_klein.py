"""FLUX.2-klein, over the components of diffusers' stock `Flux2KleinPipeline`.

A latent is a 2x2 patch of the autoencoder's, normalised by the statistics of its batch norm, which decoding undoes.
The text is three hidden layers of Qwen3 side by side, padding included: the network has no text mask. A base model
takes classifier-free guidance against the empty prompt where guidance is above 1; a distilled one takes none.

Axis letters: B batch, N image tokens, C patch channels, L text tokens, D text width, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor

from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.schedule import shifted_sigmas

# A single-stream block has one layer for queries, keys, values and the MLP's input, and one for both outputs.
_ATTENTION = (
    r"^transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|^single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
)
_MLP = r"\.(ff|ff_context)\.(linear_in|linear_out)"


class Flux2KleinAdapter(ModelAdapter):
    """FLUX.2-klein, base and distilled. Embeddings: `sequence_BLD` and `negative_sequence_BLD` of Qwen3."""

    family: ClassVar[str] = "flux2"
    pipeline_class: ClassVar[type[Any]] = Flux2KleinPipeline
    lora_target_sets: ClassVar[Mapping[str, str]] = {
        "attention": rf"({_ATTENTION})$",
        "attention_mlp": rf"({_ATTENTION}|{_MLP})$",
        "all": r"",
    }

    def __init__(self, pipeline: Any, *, height: int, width: int, max_sequence_length: int, digest: str | None) -> None:
        super().__init__(pipeline, height=height, width=width, max_sequence_length=max_sequence_length, digest=digest)
        multiple = self.pixel_multiple(pipeline)
        self._grid = (height // multiple, width // multiple)
        self._is_distilled = bool(pipeline.config.is_distilled)
        # Ids are time, row, column and place in the text.
        self._img_ids = pipeline._prepare_latent_ids(torch.empty(1, 1, *self._grid)).to(self.device)
        self._txt_ids = pipeline._prepare_text_ids(torch.empty(1, max_sequence_length, 1)).to(self.device)

    @classmethod
    def default_size(cls, pipeline: Any) -> tuple[int, int]:
        """The stock pipeline's: 1024."""
        size = int(pipeline.default_sample_size * pipeline.vae_scale_factor)
        return size, size

    @classmethod
    def default_sequence_length(cls, pipeline: Any) -> int:
        """The stock pipeline's 512, or the tokenizer's maximum if that is less."""
        return int(min(pipeline.tokenizer_max_length, pipeline.tokenizer.model_max_length))

    @classmethod
    def pixel_multiple(cls, pipeline: Any) -> int:
        """8 of the autoencoder, 2 of the patches."""
        return int(pipeline.vae_scale_factor * 2)

    @property
    def num_tokens(self) -> int:
        """Image tokens of one latent."""
        return self._grid[0] * self._grid[1]

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        sequence_BLD = self._encode_text(prompts)
        if self._is_distilled:
            return {"sequence_BLD": sequence_BLD}
        return {"sequence_BLD": sequence_BLD, "negative_sequence_BLD": self._encode_text([""]).expand_as(sequence_BLD)}

    def _encode_text(self, prompts: list[str]) -> Tensor:
        sequence_BLD: Tensor = self._pipeline.encode_prompt(
            prompts, device=self.device, max_sequence_length=self.max_sequence_length
        )[0]
        return sequence_BLD

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Returns noise float32 [B, N, C]; each row is what the stock pipeline draws from a generator of that seed."""
        shape = (1, self.transformer.config.in_channels, *self._grid)
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(s), dtype=self.dtype) for s in seeds]
        packed: Tensor = self._pipeline._pack_latents(torch.cat(draws)).to(self.device, torch.float32)
        return packed

    def sigmas(self, num_steps: int, shift: float | None = None) -> list[float]:
        """Returns the num_steps + 1 times of the pipeline's own scheduler, or of the paper's fixed shift.

        The scheduler's dynamic shift depends on the number of tokens and on the number of steps.
        """
        if shift is not None:
            return shifted_sigmas(num_steps, shift)
        scheduler = self._pipeline.scheduler
        mu = compute_empirical_mu(self.num_tokens, num_steps)
        if scheduler.config.get("use_flow_sigmas"):
            scheduler.set_timesteps(num_steps, mu=mu)
        else:
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
        return [float(sigma) for sigma in scheduler.sigmas]

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C].

        With guidance w above 1, for a model that is not distilled: v = negative + w*(positive - negative).
        """
        positive_BNC = self._forward(x_BNC, t, embeds.tensors["sequence_BLD"])
        if self.passes_per_velocity(guidance) == 1:
            return positive_BNC
        negative_BNC = self._forward(x_BNC, t, embeds.tensors["negative_sequence_BLD"])
        return negative_BNC + guidance * (positive_BNC - negative_BNC)

    def passes_per_velocity(self, guidance: float) -> int:
        """Returns 2 under classifier-free guidance, that is above 1; a distilled model never has it."""
        return 2 if guidance > 1 and not self._is_distilled else 1

    def _forward(self, x_BNC: Tensor, t: float, sequence_BLD: Tensor) -> Tensor:
        # As the pipeline does: times 1000 in float32, then the model's dtype, then back, so that the time embedding is
        # the same to the bit.
        timestep = (torch.tensor(t, dtype=torch.float32, device=self.device) * 1000).to(self.dtype) / 1000
        output: Tensor = self.transformer(
            hidden_states=x_BNC.to(self.dtype),
            timestep=timestep.expand(len(x_BNC)),
            guidance=None,
            encoder_hidden_states=sequence_BLD,
            txt_ids=self._txt_ids,
            img_ids=self._img_ids,
            return_dict=False,
        )[0]
        return output.float()

    @torch.inference_mode()
    def decode(self, x_BNC: Tensor) -> Tensor:
        """Returns images float32 [B, 3, H, W] in [0, 1] of latents at t = 0."""
        statistics = self.vae.bn
        std = torch.sqrt(statistics.running_var.float() + self.vae.config.batch_norm_eps)
        latents = (x_BNC * std + statistics.running_mean.float()).transpose(1, 2).unflatten(2, self._grid)
        latents = self._pipeline._unpatchify_latents(latents)
        latents = latents.to(self.vae.dtype, memory_format=torch.channels_last)
        images: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)
