"""Stable Diffusion 3 and 3.5 by the pipeline's own parts, with and without classifier-free guidance.

Without its T5 encoder, which the pipeline allows, the T5 part of the sequence is zeros, as there. Skip-layer guidance
and image prompts are not used. Axis letters: B batch, N latent positions, C latent channels, L text tokens, D text
width, H W pixels, h w latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.models.dynamic_shift import scheduler_sigmas
from egrpo.schedule import shifted_sigmas

_ATTENTION = r"\.attn2?\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_MLP = r"(\.ff|\.ff_context)\.net\.(0\.proj|2)"
# The pipeline's own default and limit of T5 tokens.
_DEFAULT_LENGTH, _LONGEST = 256, 512


class SD3Adapter(ModelAdapter):
    """SD3 and SD3.5. Embeddings: `sequence_BLD` of both CLIPs, then T5, and `pooled_BD` of both CLIPs."""

    family: ClassVar[str] = "sd3"
    pipeline_class: ClassVar[type[Any]] = StableDiffusion3Pipeline
    text_components: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "tokenizer",
        "tokenizer_2",
        "tokenizer_3",
    )
    lora_target_sets: ClassVar[Mapping[str, str]] = {
        "attention": rf"({_ATTENTION})$",
        "attention_mlp": rf"({_ATTENTION}|{_MLP})$",
        "all": r"",
    }

    def __init__(self, pipeline: Any, *, height: int, width: int, max_sequence_length: int, digest: str | None) -> None:
        super().__init__(pipeline, height=height, width=width, max_sequence_length=max_sequence_length, digest=digest)
        self._latent_size = (height // pipeline.vae_scale_factor, width // pipeline.vae_scale_factor)

    @classmethod
    def default_size(cls, pipeline: Any) -> tuple[int, int]:
        """The transformer's sample size: 1024 pixels for SD3 and SD3.5."""
        size = pipeline.transformer.config.sample_size * pipeline.vae_scale_factor
        return size, size

    @classmethod
    def default_sequence_length(cls, pipeline: Any) -> int:
        """The pipeline's 256 T5 tokens, or what the third tokenizer takes if that is less."""
        if pipeline.tokenizer_3 is None:
            return _DEFAULT_LENGTH
        return int(min(_DEFAULT_LENGTH, pipeline.tokenizer_3.model_max_length))

    @classmethod
    def pixel_multiple(cls, pipeline: Any) -> int:
        """8 of the autoencoder, 2 of the patches."""
        return int(pipeline.vae_scale_factor * pipeline.patch_size)

    @property
    def num_tokens(self) -> int:
        """Patches of one latent."""
        patch = self._pipeline.patch_size
        return int((self._latent_size[0] // patch) * (self._latent_size[1] // patch))

    @property
    def num_text_tokens(self) -> int:
        """Those of the CLIPs, and those of T5 behind them."""
        return int(self._pipeline.tokenizer_max_length) + self.max_sequence_length

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        sequence, pooled = self._encode_as_pipeline(prompts)
        negative_sequence, negative_pooled = self._encode_as_pipeline([""])
        return {
            "sequence_BLD": sequence,
            "pooled_BD": pooled,
            "negative_sequence_BLD": negative_sequence.expand_as(sequence),
            "negative_pooled_BD": negative_pooled.expand_as(pooled),
        }

    def _encode_as_pipeline(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        sequence, _, pooled, _ = self._pipeline.encode_prompt(
            prompts,
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        return sequence, pooled

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Returns noise float32 [B, N, C]; each row is what the stock pipeline draws from a generator of that seed."""
        shape = (1, self.transformer.config.in_channels, *self._latent_size)
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(s), dtype=self.dtype) for s in seeds]
        return _to_rows(torch.cat(draws).to(self.device, torch.float32))

    def sigmas(self, num_steps: int, shift: float | None = None) -> list[float]:
        """Returns the num_steps + 1 times of the pipeline's own scheduler, or of the paper's fixed shift."""
        if shift is not None:
            return shifted_sigmas(num_steps, shift)
        return scheduler_sigmas(self._pipeline.scheduler, num_steps, self.num_tokens)

    def passes_per_velocity(self, guidance: float) -> int:
        """Returns 2 under classifier-free guidance: above 1, as in the pipeline."""
        return 2 if guidance > 1 else 1

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C].

        Above a guidance w of 1 the batch passes twice, with the prompts and with the empty prompt:
        v = v_empty + w * (v_prompt - v_empty).
        """
        x_BChw = self._to_image(x_BNC).to(self.dtype)
        sequence, pooled = embeds.tensors["sequence_BLD"], embeds.tensors["pooled_BD"]
        guided = guidance > 1
        if guided:
            x_BChw = torch.cat([x_BChw, x_BChw])
            sequence = torch.cat([embeds.tensors["negative_sequence_BLD"], sequence])
            pooled = torch.cat([embeds.tensors["negative_pooled_BD"], pooled])
        timestep = torch.tensor(t, dtype=torch.float32, device=self.device) * 1000
        output: Tensor = self.transformer(
            hidden_states=x_BChw,
            timestep=timestep.expand(len(x_BChw)),
            encoder_hidden_states=sequence,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        output = output.float()
        if guided:
            empty, prompted = output.chunk(2)
            output = empty + guidance * (prompted - empty)
        return _to_rows(output)

    @torch.inference_mode()
    def decode(self, x_BNC: Tensor) -> Tensor:
        """Returns images float32 [B, 3, H, W] in [0, 1] of latents at t = 0."""
        latents = self._to_image(x_BNC) / self.vae.config.scaling_factor + self.vae.config.shift_factor
        latents = latents.to(self.vae.dtype, memory_format=torch.channels_last)
        images: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def _to_image(self, x_BNC: Tensor) -> Tensor:
        return x_BNC.transpose(1, 2).reshape(len(x_BNC), -1, *self._latent_size)


def _to_rows(x_BChw: Tensor) -> Tensor:
    """Returns a latent image [B, C, h, w] as [B, h * w, C]."""
    return x_BChw.flatten(2).transpose(1, 2)
