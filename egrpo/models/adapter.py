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

import torch
from torch import Tensor
from torch.nn import functional

from egrpo.errors import ModelError
from egrpo.geometry import decode_batch_size, micro_batch_size
from egrpo.models.embeds_cache import EmbedsCache, embeds_key
from egrpo.models.loading import load_pipeline

_DIGEST_LIMIT_BYTES = 2**30
_NEGATIVE = "negative_"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptEmbeds:
    """Encoded prompts: named tensors whose first axis is the prompt. Indexing selects prompts.

    Every family names its own. What classifier-free guidance needs has names that begin with `negative_`; it is the
    same for every prompt and held once.
    """

    tensors: Mapping[str, Tensor]

    def __getitem__(self, rows: Tensor) -> PromptEmbeds:
        return PromptEmbeds({name: tensor[rows.to(tensor.device)] for name, tensor in self.tensors.items()})

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def to(self, device: torch.device) -> PromptEmbeds:
        """Returns the same embeddings on a device."""
        return PromptEmbeds({name: tensor.to(device) for name, tensor in self.tensors.items()})


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
    # Prompts that pass the text encoders at once; what is kept on disk is kept by such batches.
    encode_batch_size: ClassVar[int] = 64
    # Convolutions over images are up to 1.4 times as fast in this layout, on CPU as on GPU.
    vae_memory_format: ClassVar[torch.memory_format] = torch.channels_last
    # Regular expressions over full names of linear layers, for `training.lora.targets`.
    lora_target_sets: ClassVar[Mapping[str, str]]

    def __init__(self, pipeline: Any, *, height: int, width: int, max_sequence_length: int, digest: str | None) -> None:
        self._pipeline = pipeline
        # Folder or repository, revision and dtype of the text encoders that are still to load; None if they are there.
        self._source: tuple[str, str | None, torch.dtype] | None = None
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

        Height, width and text length default to the family's own, and `transformer_dtype` to `dtype`. The text encoders
        stay where they are until `encode_prompts` needs them.

        Raises:
            ModelError: the model is not there, is of another family, or the resolution does not fit its patches.
        """
        dtypes = {"transformer": transformer_dtype or dtype, "default": dtype}
        without = dict.fromkeys(cls._text_encoders())
        pipeline = load_pipeline(cls.pipeline_class, source, revision, dtypes, without)
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
        folder = Path(source)
        digest = _digest(folder) if folder.is_dir() else revision
        model = cls(pipeline, height=height, width=width, max_sequence_length=length, digest=digest)
        model._source = (source, revision, dtype)
        return model

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

    @property
    def num_text_tokens(self) -> int:
        """Text tokens of one prompt as the network sees them, at most."""
        return self.max_sequence_length

    @abstractmethod
    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Returns the named tensors of a batch of prompts.

        Text of which the network sees every token is padded to `max_sequence_length`. Text with a mask may be padded to
        the longest of the batch: `encode_prompts` pads to the longest of all.
        """

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
    def encode_prompts(self, prompts: Sequence[str], cache: EmbedsCache | None = None) -> PromptEmbeds:
        """Returns the embeddings of all prompts, by the pipeline's own encoding, in the order of the prompts.

        They are in the memory of the CPU, since those of many prompts do not fit a GPU: 10 000 of FLUX.1 take 42 GB.
        What the cache holds is read from there; the text encoders are loaded only if something is missing. Without a
        digest nothing says which weights an embedding is of, so nothing is read or kept.
        """
        if cache is not None and self.digest is None:
            _log.warning("the model has no digest, so its encoded prompts are not kept for other runs")
            cache = None
        parts = [
            self._encode_cached(list(prompts[start : start + self.encode_batch_size]), cache)
            for start in range(0, len(prompts), self.encode_batch_size)
        ]
        # Leaving inference mode needs a copy: these tensors take part in the policy's forward with gradients.
        with torch.inference_mode(False):
            tensors = {
                # One row that all prompts share.
                name: parts[0][name].clone().expand(len(prompts), *parts[0][name].shape[1:])
                if name.startswith(_NEGATIVE)
                else _joined([part[name] for part in parts])
                for name in parts[0]
            }
            return PromptEmbeds(tensors)

    def _encode_cached(self, prompts: list[str], cache: EmbedsCache | None) -> dict[str, Tensor]:
        if cache is None or self.digest is None:
            return self._encode_now(prompts)
        dtypes = [self.dtype, self._source[2] if self._source else self.dtype]
        key = embeds_key(self.digest, self.family, dtypes, self.device.type, self.max_sequence_length, prompts)
        tensors = cache.get(key)
        if tensors is None:
            tensors = self._encode_now(prompts)
            cache.put(key, tensors)
        return tensors

    def _encode_now(self, prompts: list[str]) -> dict[str, Tensor]:
        self._load_text_encoders()
        tensors = self._encode(prompts)
        shared = {name: tensor[:1] for name, tensor in tensors.items() if name.startswith(_NEGATIVE)}
        return {name: tensor.cpu() for name, tensor in {**tensors, **shared}.items()}

    @classmethod
    def _text_encoders(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.text_components if name.startswith("text_encoder"))

    def _load_text_encoders(self) -> None:
        """Loads the text encoders from where the pipeline came from, unless they are there."""
        names = self._text_encoders()
        if self._source is None or any(getattr(self._pipeline, name) is not None for name in names):
            return
        source, revision, dtype = self._source
        others = {name: part for name, part in self._pipeline.components.items() if name not in names}
        loaded = load_pipeline(self.pipeline_class, source, revision, dtype, others)
        for name in names:
            encoder = getattr(loaded, name)
            setattr(self._pipeline, name, encoder if encoder is None else encoder.requires_grad_(False).to(self.device))

    @property
    def source(self) -> tuple[str, str | None] | None:
        """The folder or repository, and its revision, that the text encoders are still to be loaded from."""
        return self._source[:2] if self._source else None

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
        num_tokens = self.num_tokens + self.max_sequence_length
        return micro_batch_size(self.hidden_width, num_tokens, on_gpu=self.device.type == "cuda")

    @property
    def decode_batch_size(self) -> int:
        """How many images are decoded at once."""
        return decode_batch_size(self.height * self.width, on_gpu=self.device.type == "cuda")


def _joined(batches: list[Tensor]) -> Tensor:
    """Returns batches of prompts below each other; where text tokens (the second axis) are missing there are zeros."""
    longest = max(tensor.shape[1] for tensor in batches)
    missing = [(0, 0) * (tensor.ndim - 2) + (0, longest - tensor.shape[1]) for tensor in batches]
    return torch.cat([functional.pad(tensor, widths) for tensor, widths in zip(batches, missing, strict=True)]).clone()


def _freeze(pipeline: Any) -> None:
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False)
            component.eval()


def _digest(folder: Path) -> str | None:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    if sum(path.stat().st_size for path in files) > _DIGEST_LIMIT_BYTES:
        _log.warning("model folder is above 1 GiB, so its digest is not computed: %s", folder)
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
