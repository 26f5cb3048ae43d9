"""Lumina 2, over the components of diffusers' stock `Lumina2Pipeline`.

Its own time runs from 0 (noise) to 1 (image) and it predicts data - noise, so time and sign are turned round here.
Guidance above 1 is classifier-free guidance against the empty prompt, scaled back to the norm of the positive
prediction over the whole schedule, as the stock pipeline does by default. Prompts stand behind the pipeline's own
system prompt, the empty one alone.

Axis letters: B batch, N positions of the latent, C channels, L text tokens, D text width, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import Lumina2Pipeline
from torch import Tensor

from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.models.dynamic_shift import scheduler_sigmas
from egrpo.schedule import shifted_sigmas

# The text length of the stock pipeline's `__call__`.
_TEXT_TOKENS = 256
_ATTENTION = r"\.attn\.(to_q|to_k|to_v|to_out\.0)"
_MLP = r"\.feed_forward\.linear_[123]"


class Lumina2Adapter(ModelAdapter):
    """Lumina 2. Embeddings of Gemma 2: `sequence_BLD` with `mask_BL`, and both with `negative_` before."""

    family: ClassVar[str] = "lumina2"
    pipeline_class: ClassVar[type[Any]] = Lumina2Pipeline
    lora_target_sets: ClassVar[Mapping[str, str]] = {
        "attention": rf"({_ATTENTION})$",
        "attention_mlp": rf"({_ATTENTION}|{_MLP})$",
        "all": r"",
    }

    def __init__(self, pipeline: Any, *, height: int, width: int, max_sequence_length: int, digest: str | None) -> None:
        super().__init__(pipeline, height=height, width=width, max_sequence_length=max_sequence_length, digest=digest)
        factor = int(pipeline.vae_scale_factor)
        self._grid = (height // factor, width // factor)

    @classmethod
    def default_size(cls, pipeline: Any) -> tuple[int, int]:
        """The stock pipeline's: 1024."""
        return int(pipeline.default_image_size), int(pipeline.default_image_size)

    @classmethod
    def default_sequence_length(cls, pipeline: Any) -> int:
        """The stock pipeline's 256, or the tokenizer's maximum if that is less."""
        return int(min(_TEXT_TOKENS, pipeline.tokenizer.model_max_length))

    @classmethod
    def pixel_multiple(cls, pipeline: Any) -> int:
        """8 of the autoencoder, 2 of the network's patches."""
        return int(pipeline.vae_scale_factor * pipeline.transformer.config.patch_size)

    @property
    def num_tokens(self) -> int:
        """Patches of one latent."""
        patch_size = int(self.transformer.config.patch_size)
        rows, columns = self._grid
        return (rows // patch_size) * (columns // patch_size)

    @property
    def hidden_width(self) -> int:
        """Width of the network's activations, from which batch sizes are chosen."""
        return int(self.transformer.config.hidden_size)

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        sequence_BLD, mask_BL, _, _ = self._pipeline.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )
        # As the pipeline encodes its negative prompt: without the system prompt.
        negative_BLD, negative_mask_BL = self._pipeline._get_gemma_prompt_embeds(
            "", device=self.device, max_sequence_length=self.max_sequence_length
        )
        return _cut_to_longest("", sequence_BLD, mask_BL) | _cut_to_longest("negative_", negative_BLD, negative_mask_BL)

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Returns noise float32 [B, N, C]; each row is what the stock pipeline draws from a generator of that seed."""
        shape = (1, self.transformer.config.in_channels, *self._grid)
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(s), dtype=self.dtype) for s in seeds]
        return torch.cat(draws).flatten(2).transpose(1, 2).contiguous().to(self.device, torch.float32)

    def sigmas(self, num_steps: int, shift: float | None = None) -> list[float]:
        """Returns the num_steps + 1 times of the pipeline's own scheduler, or of the paper's fixed shift.

        Where the scheduler shifts dynamically, the stock pipeline tells it the number of latent channels where it
        means the number of tokens. So does this: those are the times at which the model is deployed.
        """
        if shift is not None:
            return shifted_sigmas(num_steps, shift)
        uniform = np.linspace(1.0, 1 / num_steps, num_steps).tolist()
        return scheduler_sigmas(self._pipeline.scheduler, num_steps, self.transformer.config.in_channels, uniform)

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C].

        With guidance w above 1: v = negative + w*(positive - negative), then scaled so that every row of the latent
        has the norm of its row in `positive`.
        """
        positive_BCHW = self._forward(x_BNC, t, embeds, "")
        if self.passes_per_velocity(guidance) == 1:
            return _packed(positive_BCHW)
        negative_BCHW = self._forward(x_BNC, t, embeds, "negative_")
        guided_BCHW = negative_BCHW + guidance * (positive_BCHW - negative_BCHW)
        norms = [torch.linalg.vector_norm(v_BCHW, dim=-1, keepdim=True) for v_BCHW in (positive_BCHW, guided_BCHW)]
        return _packed(guided_BCHW * (norms[0] / norms[1]))

    def passes_per_velocity(self, guidance: float) -> int:
        """Returns 2 under classifier-free guidance, that is above 1."""
        return 2 if guidance > 1 else 1

    def _forward(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, prefix: str) -> Tensor:
        # As the pipeline does: times 1000 and back in float32, so that the time embedding is the same to the bit.
        time = 1 - (torch.tensor(t, dtype=torch.float32, device=self.device) * 1000) / 1000
        output: Tensor = self.transformer(
            hidden_states=self._unpacked(x_BNC).to(self.dtype),
            timestep=time.expand(len(x_BNC)),
            encoder_hidden_states=embeds.tensors[f"{prefix}sequence_BLD"],
            encoder_attention_mask=embeds.tensors[f"{prefix}mask_BL"],
            return_dict=False,
        )[0]
        return -output.float()

    def _unpacked(self, x_BNC: Tensor) -> Tensor:
        return x_BNC.transpose(1, 2).reshape(len(x_BNC), -1, *self._grid)

    @torch.inference_mode()
    def decode(self, x_BNC: Tensor) -> Tensor:
        """Returns images float32 [B, 3, H, W] in [0, 1] of latents at t = 0."""
        latents = self._unpacked(x_BNC) / self.vae.config.scaling_factor + self.vae.config.shift_factor
        latents = latents.to(self.vae.dtype, memory_format=torch.channels_last)
        images: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)


def _packed(v_BCHW: Tensor) -> Tensor:
    return v_BCHW.flatten(2).transpose(1, 2)


def _cut_to_longest(prefix: str, sequence_BLD: Tensor, mask_BL: Tensor) -> dict[str, Tensor]:
    """Cuts the padding behind the longest prompt, which the network masks: for `""` all but one token."""
    longest = int(mask_BL.sum(dim=1).max())
    return {f"{prefix}sequence_BLD": sequence_BLD[:, :longest], f"{prefix}mask_BL": mask_BL[:, :longest]}
