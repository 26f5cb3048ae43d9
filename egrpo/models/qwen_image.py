"""Qwen-Image, over the components of diffusers' stock `QwenImagePipeline`.

Guidance above 1 is classifier-free guidance against the empty prompt, with the pipeline's own rescaling; at 1 or below
there is none. Prompts differ in length: they are padded, with a mask, and every batch is cut to its longest.

Axis letters: B batch, N image tokens, C packed channels, L text tokens, K tokens of the negative prompt, D text width,
H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import QwenImagePipeline
from torch import Tensor

from egrpo.errors import ModelError
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.models.dynamic_shift import scheduler_sigmas
from egrpo.schedule import shifted_sigmas

# What the model's authors and the pipeline's documentation pass for "no negative prompt": None would switch guidance
# off.
NEGATIVE_PROMPT = " "
# The text length of the stock pipeline's `__call__`.
_TEXT_TOKENS = 512
_ATTENTION = r"\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_MLP = r"\.(img_mlp|txt_mlp)\.net\.(0\.proj|2)"


class QwenImageAdapter(ModelAdapter):
    """Qwen-Image. Embeddings of Qwen2.5-VL: `sequence_BLD` with `mask_BL`, and `negative_sequence_BKD`."""

    family: ClassVar[str] = "qwen_image"
    pipeline_class: ClassVar[type[Any]] = QwenImagePipeline
    # The stock text encoder computes logits over its whole vocabulary: 64 long prompts would take 10 GB for them.
    encode_batch_size: ClassVar[int] = 8
    # The VAE is made of three-dimensional convolutions.
    vae_memory_format: ClassVar[torch.memory_format] = torch.contiguous_format
    lora_target_sets: ClassVar[Mapping[str, str]] = {
        "attention": rf"({_ATTENTION})$",
        "attention_mlp": rf"({_ATTENTION}|{_MLP})$",
        "all": r"",
    }

    def __init__(self, pipeline: Any, *, height: int, width: int, max_sequence_length: int, digest: str | None) -> None:
        super().__init__(pipeline, height=height, width=width, max_sequence_length=max_sequence_length, digest=digest)
        multiple = self.pixel_multiple(pipeline)
        self._grid = (height // multiple, width // multiple)
        # The model keeps the rotary embedding of an image shape. Made here, because a tensor that is first made in the
        # rollout's inference mode could not take part in the update.
        with torch.inference_mode(False):
            self.transformer.pos_embed(self._image_shapes(1), max_txt_seq_len=1, device=self.device)

    @classmethod
    def default_size(cls, pipeline: Any) -> tuple[int, int]:
        """The stock pipeline's: 1024."""
        size = int(pipeline.default_sample_size * pipeline.vae_scale_factor)
        return size, size

    @classmethod
    def default_sequence_length(cls, pipeline: Any) -> int:
        """The stock pipeline's 512, or the tokenizer's maximum if that is less."""
        return int(min(_TEXT_TOKENS, pipeline.tokenizer.model_max_length))

    @classmethod
    def pixel_multiple(cls, pipeline: Any) -> int:
        """8 of the autoencoder, 2 of the packing."""
        return int(pipeline.vae_scale_factor * 2)

    @classmethod
    def check_pipeline(cls, pipeline: Any, source: str) -> None:
        """Refuses a model with embedded guidance, which the stock transformer declares but cannot run."""
        super().check_pipeline(pipeline, source)
        if pipeline.transformer.config.guidance_embeds:
            raise ModelError(
                f"base model {source!r} has guidance_embeds true, which diffusers' Qwen-Image transformer cannot run; "
                "allowed: false"
            )

    @property
    def num_tokens(self) -> int:
        """Image tokens of one latent."""
        return self._grid[0] * self._grid[1]

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        sequence_BLD, mask_BL = self._encode_text(prompts)
        negative_BKD, _ = self._encode_text([NEGATIVE_PROMPT])
        return {
            "sequence_BLD": sequence_BLD,
            "mask_BL": mask_BL,
            "negative_sequence_BKD": negative_BKD.expand(len(prompts), -1, -1),
        }

    def _encode_text(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        sequence_BLD, mask_BL = self._pipeline.encode_prompt(
            prompts, device=self.device, max_sequence_length=self.max_sequence_length
        )
        if mask_BL is None:  # All are of the same length.
            mask_BL = torch.ones(sequence_BLD.shape[:2], device=self.device)
        return sequence_BLD, mask_BL.bool()

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Returns noise float32 [B, N, C]; each row is what the stock pipeline draws from a generator of that seed."""
        channels = self.transformer.config.in_channels // 4
        rows, columns = 2 * self._grid[0], 2 * self._grid[1]
        draws = [
            torch.randn((1, 1, channels, rows, columns), generator=torch.Generator().manual_seed(s), dtype=self.dtype)
            for s in seeds
        ]
        latents = self._pipeline._pack_latents(torch.cat(draws), len(seeds), channels, rows, columns)
        packed: Tensor = latents.to(self.device, torch.float32)
        return packed

    def sigmas(self, num_steps: int, shift: float | None = None) -> list[float]:
        """Returns the num_steps + 1 times of the pipeline's own scheduler, or of the paper's fixed shift."""
        if shift is not None:
            return shifted_sigmas(num_steps, shift)
        uniform = np.linspace(1.0, 1 / num_steps, num_steps).tolist()
        return scheduler_sigmas(self._pipeline.scheduler, num_steps, self.num_tokens, uniform)

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C]; two forwards if guidance is above 1.

        With guidance w: v = negative + w*(positive - negative), then scaled so that every token has the norm of its
        positive velocity.
        """
        text_BLD, mask_BL = _cut_to_longest(embeds.tensors["sequence_BLD"], embeds.tensors["mask_BL"])
        positive_BNC = self._forward(x_BNC, t, text_BLD, mask_BL)
        if guidance <= 1:
            return positive_BNC
        negative_BNC = self._forward(x_BNC, t, embeds.tensors["negative_sequence_BKD"], None)
        guided_BNC = negative_BNC + guidance * (positive_BNC - negative_BNC)
        norms = [torch.linalg.vector_norm(v_BNC, dim=-1, keepdim=True) for v_BNC in (positive_BNC, guided_BNC)]
        rescaled_BNC: Tensor = guided_BNC * (norms[0] / norms[1])
        return rescaled_BNC

    def passes_per_velocity(self, guidance: float) -> int:
        """Returns 2 under classifier-free guidance, that is above 1."""
        return 2 if guidance > 1 else 1

    def _forward(self, x_BNC: Tensor, t: float, text_BLD: Tensor, mask_BL: Tensor | None) -> Tensor:
        batch = len(x_BNC)
        # As the pipeline does: times 1000 in float32, then the model's dtype, then back.
        timestep = (torch.tensor(t, dtype=torch.float32, device=self.device) * 1000).to(self.dtype) / 1000
        output: Tensor = self.transformer(
            hidden_states=x_BNC.to(self.dtype),
            timestep=timestep.expand(batch),
            encoder_hidden_states=text_BLD,
            encoder_hidden_states_mask=mask_BL,
            img_shapes=self._image_shapes(batch),
            return_dict=False,
        )[0]
        return output.float()

    def _image_shapes(self, batch: int) -> list[list[tuple[int, int, int]]]:
        return [[(1, *self._grid)]] * batch

    @torch.inference_mode()
    def decode(self, x_BNC: Tensor) -> Tensor:
        """Returns images float32 [B, 3, H, W] in [0, 1] of latents at t = 0; the VAE sees a video of one frame."""
        latents = self._pipeline._unpack_latents(x_BNC, self.height, self.width, self._pipeline.vae_scale_factor)
        config = self.vae.config
        mean, std = (
            torch.tensor(values, device=latents.device)[:, None, None, None]
            for values in (config.latents_mean, config.latents_std)
        )
        video: Tensor = self.vae.decode((latents * std + mean).to(self.vae.dtype), return_dict=False)[0]
        return (video[:, :, 0].float() / 2 + 0.5).clamp(0, 1)


def _cut_to_longest(text_BLD: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor | None]:
    """Cuts the padding that no prompt of the batch needs; without a mask if none is left, as in the stock pipeline."""
    lengths = mask_BL.sum(dim=1).tolist()
    longest = max(lengths)
    return text_BLD[:, :longest], mask_BL[:, :longest] if min(lengths) < longest else None
