"""Sana, over the components of diffusers' stock `SanaPipeline`.

Sana is a rectified flow that ships a DPM-Solver++ scheduler of second order. A rollout needs Euler steps, so the times
are that scheduler's flow shift of uniform ones and the step is Euler's: the stock pipeline with a
`FlowMatchEulerDiscreteScheduler` of the same shift draws the same image. Two guards of the shipped scheduler are left
out, as that one does: it starts at 0.999 before the shift, where the step of eq. 2 would divide by next to nothing, and
it rounds the network's times down to integers.

Guidance above 1 is classifier-free guidance against the empty prompt. Prompts stand behind the stock pipeline's
"complex human instruction", the empty one alone. Images have the size that the spec says: the stock pipeline's
resolution binning, which draws another size and crops, is off.

Axis letters: B batch, N positions of the latent, C channels, L text tokens, D text width, H W pixels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SanaPipeline
from torch import Tensor

from egrpo.errors import ModelError
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.schedule import shifted_sigmas

_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(SanaPipeline.__call__).parameters.items()}
_ATTENTION = r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
# The MLP is a convolution over 3x3 positions between two layers on every position; those two take an adapter.
_MLP = r"\.ff\.(conv_inverted|conv_point)"


class SanaAdapter(ModelAdapter):
    """Sana. Embeddings of Gemma 2: `sequence_BLD` with `mask_BL`, and both with `negative_` before."""

    family: ClassVar[str] = "sana"
    pipeline_class: ClassVar[type[Any]] = SanaPipeline
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
        """The transformer's sample size: 512, 1024, 2048 or 4096 pixels."""
        size = int(pipeline.transformer.config.sample_size * pipeline.vae_scale_factor)
        return size, size

    @classmethod
    def default_sequence_length(cls, pipeline: Any) -> int:
        """The stock pipeline's 300, or the tokenizer's maximum if that is less."""
        return int(min(_DEFAULTS["max_sequence_length"], pipeline.tokenizer.model_max_length))

    @classmethod
    def pixel_multiple(cls, pipeline: Any) -> int:
        """32 of the autoencoder, times the network's patches of 1 or 2; 32 at least, as in the stock pipeline."""
        return math.lcm(32, pipeline.vae_scale_factor * pipeline.transformer.config.patch_size)

    @classmethod
    def check_pipeline(cls, pipeline: Any, source: str) -> None:
        """Refuses schedulers without a flow's fixed shift, and the distilled models that embed guidance."""
        super().check_pipeline(pipeline, source)
        scheduler, config = pipeline.scheduler, pipeline.scheduler.config
        flows = isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or (
            isinstance(scheduler, DPMSolverMultistepScheduler)
            and config.use_flow_sigmas
            and config.prediction_type == "flow_prediction"
        )
        if not flows or config.get("use_dynamic_shifting"):
            raise ModelError(
                f"base model {source!r} has the scheduler {type(scheduler).__name__} without a fixed flow shift; "
                "allowed: DPMSolverMultistepScheduler with use_flow_sigmas, FlowMatchEulerDiscreteScheduler"
            )
        if pipeline.transformer.config.guidance_embeds:
            raise ModelError(f"base model {source!r} has guidance_embeds true; allowed: false")

    @property
    def num_tokens(self) -> int:
        """Patches of one latent."""
        patch_size = int(self.transformer.config.patch_size)
        rows, columns = self._grid
        return (rows // patch_size) * (columns // patch_size)

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        sequence_BLD, mask_BL = self._encode_text(prompts, _DEFAULTS["complex_human_instruction"])
        negative_BLD, negative_mask_BL = self._encode_text([""], None)
        return {
            "sequence_BLD": sequence_BLD,
            "mask_BL": mask_BL,
            "negative_sequence_BLD": negative_BLD,
            "negative_mask_BL": negative_mask_BL,
        }

    def _encode_text(self, prompts: list[str], instruction: list[str] | None) -> tuple[Tensor, Tensor]:
        sequence_BLD, mask_BL, _, _ = self._pipeline.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
            complex_human_instruction=instruction,
        )
        # Behind the longest prompt is padding, which the network masks: for `""` it is all but one token.
        longest = int(mask_BL.sum(dim=1).max())
        return sequence_BLD[:, :longest].to(self.dtype), mask_BL[:, :longest]

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Returns noise float32 [B, N, C]; each row is what the stock pipeline draws from a generator of that seed."""
        shape = (1, self.transformer.config.in_channels, *self._grid)
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return _packed(torch.cat(draws)).contiguous().to(self.device)

    def sigmas(self, num_steps: int, shift: float | None = None) -> list[float]:
        """Returns the num_steps + 1 times from 1 to 0, or those of the paper's fixed shift.

        A DPM-Solver++ scheduler gives its flow shift to uniform times; an Euler scheduler makes its times itself.
        """
        if shift is not None:
            return shifted_sigmas(num_steps, shift)
        scheduler = self._pipeline.scheduler
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            scheduler.set_timesteps(num_steps)
        else:
            scheduler = FlowMatchEulerDiscreteScheduler(shift=scheduler.config.flow_shift)
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps).tolist())
        return [float(sigma) for sigma in scheduler.sigmas]

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C].

        With guidance w above 1: v = negative + w*(positive - negative).
        """
        positive_BNC = self._forward(x_BNC, t, embeds, "")
        if self.passes_per_velocity(guidance) == 1:
            return positive_BNC
        negative_BNC = self._forward(x_BNC, t, embeds, "negative_")
        return negative_BNC + guidance * (positive_BNC - negative_BNC)

    def passes_per_velocity(self, guidance: float) -> int:
        """Returns 2 under classifier-free guidance, that is above 1."""
        return 2 if guidance > 1 else 1

    def _forward(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, prefix: str) -> Tensor:
        config = self.transformer.config
        time = torch.tensor(t, dtype=torch.float32, device=self.device) * 1000 * config.timestep_scale
        output: Tensor = self.transformer(
            self._unpacked(x_BNC).to(self.dtype),
            encoder_hidden_states=embeds.tensors[f"{prefix}sequence_BLD"],
            encoder_attention_mask=embeds.tensors[f"{prefix}mask_BL"],
            timestep=time.expand(len(x_BNC)),
            return_dict=False,
        )[0]
        # A network with twice the channels also predicts a variance, which is not used.
        return _packed(output[:, : config.in_channels].float())

    def _unpacked(self, x_BNC: Tensor) -> Tensor:
        return x_BNC.transpose(1, 2).reshape(len(x_BNC), -1, *self._grid)

    @torch.inference_mode()
    def decode(self, x_BNC: Tensor) -> Tensor:
        """Returns images float32 [B, 3, H, W] in [0, 1] of latents at t = 0."""
        latents = self._unpacked(x_BNC).to(self.vae.dtype) / self.vae.config.scaling_factor
        images: Tensor = self.vae.decode(latents.to(memory_format=torch.channels_last), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)


def _packed(v_BCHW: Tensor) -> Tensor:
    return v_BCHW.flatten(2).transpose(1, 2)
