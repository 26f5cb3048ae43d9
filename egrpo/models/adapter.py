"""The one interface to a base model: prompts in, velocity in the middle, images out.

Rollout, policy update and evaluation use nothing else of a model. A family (`flux`, `sd3`, ...) takes its stock
diffusers pipeline's `__call__` apart so that training can batch it freely, and says in class attributes what it is. For
the same prompt and seed its plain ODE gives the stock pipeline's image.

Latents are [B, N, C] and float32 between steps, whatever the network takes: a family packs and unpacks them itself.
Flow time t runs from 1 (noise) to 0 (image) and the velocity is noise - data, whatever sign the network uses.

Axis letters: B batch, N latent tokens or positions, C channels of one, H W pixels.
"""

from __future__ import annotations

import gc
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import diffusers
import torch
import transformers
from torch import Tensor

from egrpo.errors import ModelError

# Numbers in one activation of a forward, tokens times width. On CPU more than this no longer fits the caches and is
# slower (measured with tiny-flux-shapes: 30 to 200 images are alike); on a GPU it is 7 FLUX.1 images of 512 pixels.
_CPU_BATCH_VOLUME = 2**19
_CUDA_BATCH_VOLUME = 2**25
# Pixels decoded at once; measured likewise.
_CPU_DECODE_PIXELS = 2**17
_CUDA_DECODE_PIXELS = 2**21
_ENCODE_BATCH = 64
_DIGEST_LIMIT_BYTES = 2**30


@dataclass(frozen=True)
class PromptEmbeds:
    """Encoded prompts: named tensors whose first axis is the prompt. Indexing selects prompts.

    Every family names its own. What classifier-free guidance needs has names that begin with `negative_`.
    """

    tensors: Mapping[str, Tensor]

    def __getitem__(self, rows: Tensor) -> PromptEmbeds:
        return PromptEmbeds({name: tensor[rows] for name, tensor in self.tensors.items()})

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))


class ModelAdapter(ABC):
    """A frozen base model at one resolution.

    Args:
        pipeline: a stock diffusers pipeline, whose components are used and whose `__call__` is not.
        height: of the images, pixels, a multiple of `pixel_multiple`.
        width: likewise.
        max_sequence_length: text tokens per prompt.
        digest: identifies the weights; a hub revision, or the sha256 of a folder's files.
    """

    family: ClassVar[str]
    pipeline_class: ClassVar[type[Any]]
    # Components of the pipeline that only `encode_prompts` needs.
    text_components: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")
    # Convolutions over images are up to 1.4 times as fast in this layout, on CPU as on GPU.
    vae_memory_format: ClassVar[torch.memory_format] = torch.channels_last
    # Regular expressions over full names of linear layers, for `training.lora.targets`.
    lora_target_sets: ClassVar[Mapping[str, str]]

    def __init__(self, pipeline: Any, *, height: int, width: int, max_sequence_length: int, digest: str | None) -> None:
        self._pipeline = pipeline
        self.transformer: Any = pipeline.transformer
        self.vae: Any = pipeline.vae
        self.height, self.width = height, width
        self.max_sequence_length = max_sequence_length
        self.digest = digest
        self.device: torch.device = self.transformer.device
        self.dtype: torch.dtype = self.transformer.dtype
        self.vae.to(memory_format=self.vae_memory_format)

    @classmethod
    def load(
        cls,
        source: str,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        transformer_dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        height: int | None = None,
        width: int | None = None,
        max_sequence_length: int | None = None,
    ) -> Self:
        """Returns the model of a pipeline folder or repository, frozen. Safetensors only, no remote code.

        Height, width and text length default to the family's own, and `transformer_dtype` to `dtype`.

        Raises:
            ModelError: the model is not there, is of another family, or the resolution does not fit its patches.
        """
        folder = Path(source)
        dtypes = {"transformer": transformer_dtype or dtype, "default": dtype}
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        try:
            pipeline = cls.pipeline_class.from_pretrained(
                source, revision=revision, dtype=dtypes, use_safetensors=True, local_files_only=folder.is_dir()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ModelError(f"base model {source!r} cannot be loaded: {error}") from error
        pipeline.to(device or torch.device("cpu"))
        _freeze(pipeline)
        own_height, own_width = cls.default_size(pipeline)
        height, width = height or own_height, width or own_width
        multiple = cls.pixel_multiple(pipeline)
        if height % multiple or width % multiple:
            raise ModelError(
                f"base model {source!r} needs height and width in multiples of {multiple}, got {height}x{width}"
            )
        cls.check_pipeline(pipeline, source)
        length = max_sequence_length or cls.default_sequence_length(pipeline)
        digest = revision or (_digest(folder) if folder.is_dir() else None)
        return cls(pipeline, height=height, width=width, max_sequence_length=length, digest=digest)

    # What a family says about its pipelines.

    @classmethod
    @abstractmethod
    def default_size(cls, pipeline: Any) -> tuple[int, int]:
        """Returns the height and width in pixels that images have unless the spec says otherwise."""

    @classmethod
    @abstractmethod
    def default_sequence_length(cls, pipeline: Any) -> int:
        """Returns the number of text tokens unless the catalogue says otherwise."""

    @classmethod
    @abstractmethod
    def pixel_multiple(cls, pipeline: Any) -> int:
        """Returns what height and width must be multiples of."""

    @classmethod
    def check_pipeline(cls, pipeline: Any, source: str) -> None:
        """Refuses a pipeline that the family cannot serve, by `ModelError`."""
        config = pipeline.scheduler.config
        if config.get("invert_sigmas") or config.get("stochastic_sampling"):
            raise ModelError(f"base model {source!r} has a scheduler with inverted times or noise; use its stock one")

    # What training needs.

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """Latent tokens of one image as the network sees them."""

    @abstractmethod
    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Returns the named tensors of a batch of prompts; lengths are padded to the same for every call."""

    @abstractmethod
    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Returns noise float32 [B, N, C]; each row is what the stock pipeline draws from a generator of that seed."""

    @abstractmethod
    def sigmas(self, num_steps: int, shift: float | None = None) -> list[float]:
        """Returns the num_steps + 1 times of the pipeline's own scheduler, or of the paper's fixed shift."""

    @abstractmethod
    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        """Returns the model's velocity (noise - data), float32 [B, N, C], for the whole batch.

        `t` is the flow time, never truncated. `guidance` is embedded, applied as classifier-free guidance, or ignored,
        as the family's stock pipeline does.
        """

    @abstractmethod
    def decode(self, x_BNC: Tensor) -> Tensor:
        """Returns images float32 [B, 3, H, W] in [0, 1] of latents at t = 0; runs in inference mode."""

    def passes_per_velocity(self, guidance: float) -> int:
        """Returns how many times an image passes the network for one velocity: 2 under classifier-free guidance."""
        return 1

    @torch.inference_mode()
    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbeds:
        """Returns the embeddings of all prompts, by the pipeline's own encoding, in the order of the prompts."""
        parts = [
            self._encode(list(prompts[start : start + _ENCODE_BATCH]))
            for start in range(0, len(prompts), _ENCODE_BATCH)
        ]
        # Leaving inference mode needs a copy: these tensors take part in the policy's forward with gradients.
        with torch.inference_mode(False):
            return PromptEmbeds({name: torch.cat([part[name] for part in parts]).clone() for name in parts[0]})

    def drop_text_encoders(self) -> None:
        """Frees what only `encode_prompts` needs; it cannot be called afterwards."""
        for name in self.text_components:
            setattr(self._pipeline, name, None)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def hidden_width(self) -> int:
        """Width of the network's activations, from which batch sizes are chosen."""
        config = self.transformer.config
        return int(config.num_attention_heads * config.attention_head_dim)

    @property
    def micro_batch_size(self) -> int:
        """How many images pass the network at once, from the width of the model and the number of tokens."""
        volume = _CUDA_BATCH_VOLUME if self.device.type == "cuda" else _CPU_BATCH_VOLUME
        return max(1, volume // (self.hidden_width * (self.num_tokens + self.max_sequence_length)))

    @property
    def decode_batch_size(self) -> int:
        """How many images are decoded at once."""
        pixels = _CUDA_DECODE_PIXELS if self.device.type == "cuda" else _CPU_DECODE_PIXELS
        return max(1, pixels // (self.height * self.width))


def _freeze(pipeline: Any) -> None:
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False)
            component.eval()


def _digest(folder: Path) -> str | None:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    if sum(path.stat().st_size for path in files) > _DIGEST_LIMIT_BYTES:
        logging.getLogger(__name__).warning("model folder is above 1 GiB, so its digest is not computed: %s", folder)
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
