"""Z-Image, base and Turbo, over the components of diffusers' stock `ZImagePipeline`.

The network counts time from noise (0) to image (1) and gives data - noise; both are turned round here. It takes lists:
one latent and one prompt of its own length each, which it pads and masks itself. Guidance above 0 is classifier-free
guidance against the empty prompt, as in the stock pipeline, where 0 switches it off: Z-Image-Turbo wants 0.

Axis letters: B batch, N latent positions, C latent channels, L text tokens, K tokens of the negative prompt, D text
width, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ZImagePipeline
from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.models.dynamic_shift import scheduler_sigmas
from egrpo.schedule import shifted_sigmas

NEGATIVE_PROMPT = ""
# Size and text length of the stock pipeline's `__call__`.
_SIZE = 1024
_TEXT_TOKENS = 512
_ATTENTION = r"\.attention\.(to_q|to_k|to_v|to_out\.0)"
_MLP = r"\.feed_forward\.w[123]"


class ZImageAdapter(ModelAdapter):
    """Z-Image. Embeddings of Qwen3: `sequence_BLD` with `mask_BL`, and `negative_sequence_BKD`."""

    family: ClassVar[str] = "z_image"
    pipeline_class: ClassVar[type[Any]] = ZImagePipeline
    # The stock pipeline pads every prompt to the limit before the text encoder and keeps what all its layers give.
    encode_batch_size: ClassVar[int] = 16
    lora_target_sets: ClassVar[Mapping[str, str]] = {
        "attention": rf"({_ATTENTION})$",
        "attention_mlp": rf"({_ATTENTION}|{_MLP})$",
        "all": r"",
    }

    def __init__(self, pipeline: Any, *, height: int, width: int, max_sequence_length: int, digest: str | None) -> None:
        super().__init__(pipeline, height=height, width=width, max_sequence_length=max_sequence_length, digest=digest)
        multiple = self.pixel_multiple(pipeline)
        self._grid = (2 * (height // multiple), 2 * (width // multiple))

    @classmethod
    def default_size(cls, pipeline: Any) -> tuple[int, int]:
        """The stock pipeline's: 1024."""
        return _SIZE, _SIZE

    @classmethod
    def default_sequence_length(cls, pipeline: Any) -> int:
        """The stock pipeline's 512, or the tokenizer's maximum if that is less."""
        return int(min(_TEXT_TOKENS, pipeline.tokenizer.model_max_length))

    @classmethod
    def pixel_multiple(cls, pipeline: Any) -> int:
        """8 of the autoencoder, 2 of the network's patches."""
        return int(pipeline.vae_scale_factor * 2)

    @property
    def num_tokens(self) -> int:
        """Patches of one latent."""
        return self._grid[0] * self._grid[1] // 4

    @property
    def hidden_width(self) -> int:
        """The network's width, which it calls `dim`."""
        return int(self.transformer.config.dim)

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        texts, negative = self._encode_text(prompts), self._encode_text([NEGATIVE_PROMPT])[0]
        lengths = torch.tensor([len(text) for text in texts], device=self.device)
        return {
            "sequence_BLD": pad_sequence(texts, batch_first=True),
            "mask_BL": torch.arange(int(lengths.max()), device=self.device) < lengths[:, None],
            "negative_sequence_BKD": negative.expand(len(prompts), -1, -1),
        }

    def _encode_text(self, prompts: list[str]) -> list[Tensor]:
        # The pipeline writes into the list that it is given.
        texts, _ = self._pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        found: list[Tensor] = texts
        return found

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Returns noise float32 [B, N, C]; each row is what the stock pipeline draws from a generator of that seed."""
        shape = (self.transformer.config.in_channels, *self._grid)
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return _as_positions(torch.stack(draws)).to(self.device)

    def sigmas(self, num_steps: int, shift: float | None = None) -> list[float]:
        """Returns the num_steps + 1 times of the pipeline's own scheduler, or of the paper's fixed shift."""
        if shift is not None:
            return shifted_sigmas(num_steps, shift)
        uniform = get_default_z_image_sigmas(num_steps)
        return scheduler_sigmas(self._pipeline.scheduler, num_steps, self.num_tokens, uniform)

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C]; two forwards if guidance is above 0.

        With guidance w: v = positive + w*(positive - negative), so that 0 is no guidance.
        """
        lengths = embeds.tensors["mask_BL"].sum(dim=1).tolist()
        texts = [text[:length] for text, length in zip(embeds.tensors["sequence_BLD"], lengths, strict=True)]
        positive_BNC = self._forward(x_BNC, t, texts)
        if guidance <= 0:
            return positive_BNC
        negative_BNC = self._forward(x_BNC, t, list(embeds.tensors["negative_sequence_BKD"]))
        return positive_BNC + guidance * (positive_BNC - negative_BNC)

    def passes_per_velocity(self, guidance: float) -> int:
        """Returns 2 under classifier-free guidance, that is above 0."""
        return 2 if guidance > 0 else 1

    def _forward(self, x_BNC: Tensor, t: float, texts: list[Tensor]) -> Tensor:
        # One frame each: [C, 1, rows, columns].
        latents = x_BNC.mT.reshape(len(x_BNC), -1, 1, *self._grid).to(self.dtype)
        # As the pipeline does: from the scheduler's 1000*t, in float32, so that the time embedding is the same.
        time = (1000 - torch.tensor(t, dtype=torch.float32, device=self.device) * 1000) / 1000
        outputs = self.transformer(list(latents), time.expand(len(latents)), texts, return_dict=False)[0]
        return -_as_positions(torch.stack(outputs).float())

    @torch.inference_mode()
    def decode(self, x_BNC: Tensor) -> Tensor:
        """Returns images float32 [B, 3, H, W] in [0, 1] of latents at t = 0."""
        latents = (
            x_BNC.mT.reshape(len(x_BNC), -1, *self._grid) / self.vae.config.scaling_factor
            + self.vae.config.shift_factor
        )
        latents = latents.to(self.vae.dtype, memory_format=torch.channels_last)
        images: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)


def _as_positions(latents: Tensor) -> Tensor:
    """Returns [B, N, C] of latents [B, C, ...]."""
    return latents.flatten(2).mT.contiguous()
