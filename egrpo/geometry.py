"""How many images an update means, and how the network meets them: the numbers that people get wrong.

One line of the log says them at the start; the memory estimate starts from them. Free of torch, so that they are known
before anything is loaded, and by the same rules.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from egrpo.config import TrainSpec
from egrpo.memory import FLOAT32, Workload

# Numbers in one activation of a forward, tokens times width. On CPU more than this no longer fits the caches and is
# slower (measured with tiny-flux-shapes: 30 to 200 images are alike); on a GPU it is 7 FLUX.1 images of 512 pixels.
_CPU_BATCH_VOLUME = 2**19
_CUDA_BATCH_VOLUME = 2**25
# Pixels decoded at once; measured likewise.
_CPU_DECODE_PIXELS = 2**17
_CUDA_DECODE_PIXELS = 2**21
# Above this the activations of a forward are computed twice rather than kept, unless the spec says otherwise.
_LARGE_MODEL_PARAMETERS = 10**9
# Folding holds a second copy of the adapted weights: not worth it where they are large, and never in bfloat16, where a
# small update is lost when it is added to a weight.
_FOLD_LIMIT_BYTES = 2**31


def micro_batch_size(hidden_width: int, num_tokens: int, *, on_gpu: bool) -> int:
    """Returns how many images of that many tokens pass a network of that width at once, unless the spec says it."""
    volume = _CUDA_BATCH_VOLUME if on_gpu else _CPU_BATCH_VOLUME
    return max(1, volume // (hidden_width * num_tokens))


def decode_batch_size(pixels: int, *, on_gpu: bool) -> int:
    """Returns how many images of that many pixels are decoded at once."""
    return max(1, (_CUDA_DECODE_PIXELS if on_gpu else _CPU_DECODE_PIXELS) // pixels)


def checkpoints_gradients(setting: Literal["auto", True, False], parameters: int) -> bool:
    """Returns whether a transformer of that many parameters computes its activations again in the backward pass."""
    return parameters > _LARGE_MODEL_PARAMETERS if setting == "auto" else setting


def folds_adapter(parameters: int, weight_bytes: int) -> bool:
    """Returns whether an adapter on layers of that many parameters is folded for the rollout: exact, and affordable."""
    return weight_bytes == FLOAT32 and parameters * weight_bytes <= _FOLD_LIMIT_BYTES


@dataclass(frozen=True)
class BatchGeometry:
    """What one rollout draws and one optimizer step learns from, over all processes.

    Args:
        prompts: prompts of one rollout.
        images_per_prompt: images of a prompt's groups, all tails counted.
        minibatches: optimizer steps of one pass over the rollout, each on its share of the prompts.
        passes: passes over the rollout.
        draws_anchor: whether each prompt has one image more, drawn by the plain ODE.
        forwards_per_prompt: latents of a prompt that the update may run at once: 1 where groups share them.
        micro_batch: images that pass the network at once.
        processes: processes that share the prompts.
    """

    prompts: int
    images_per_prompt: int
    minibatches: int
    passes: int
    draws_anchor: bool
    forwards_per_prompt: int
    micro_batch: int
    processes: int = 1

    @property
    def own_prompts(self) -> int:
        """Prompts of one rollout that each process draws."""
        return self.prompts // self.processes

    @property
    def own_rows(self) -> int:
        """Images that each process draws: of its prompts' groups and their anchors."""
        return self.rows // self.processes

    @property
    def images(self) -> int:
        """Images that a rollout draws for its groups."""
        return self.prompts * self.images_per_prompt

    @property
    def rows(self) -> int:
        """Images that a rollout draws: its groups' and the anchors."""
        return self.images + (self.prompts if self.draws_anchor else 0)

    def __str__(self) -> str:
        anchors = f", and {self.prompts} anchors" if self.draws_anchor else ""
        return (
            f"{self.images // self.minibatches} images per update = {self.prompts // self.minibatches} prompts x "
            f"{self.images_per_prompt} images; {self.minibatches * self.passes} updates on a rollout of "
            f"{self.images} images{anchors}; {self.micro_batch} images pass the network at once; "
            + ("1 process" if self.processes == 1 else f"shared by {self.processes} processes")
        )


def batch_geometry(spec: TrainSpec, micro_batch: int, processes: int = 1) -> BatchGeometry:
    """Returns the geometry of a run by so many processes, which share its prompts equally."""
    method, training = spec.method, spec.training
    return BatchGeometry(
        prompts=training.prompts_per_update * training.minibatches_per_rollout,
        images_per_prompt=method.images_per_prompt,
        minibatches=training.minibatches_per_rollout,
        passes=training.updates_per_rollout,
        draws_anchor=method.draws_anchor,
        forwards_per_prompt=1 if method.draws_anchor else method.group_size,
        micro_batch=micro_batch,
        processes=processes,
    )


@dataclass(frozen=True)
class Passage:
    """One image's way through a model, and how many take it at once.

    Args:
        latent_tokens: of one image, as the network sees them.
        latent_channels: numbers of one latent token.
        text_tokens: of one prompt.
        pixels: of one image.
        passes: times that an image passes the network for one velocity: 2 under classifier-free guidance.
        decode_batch: images decoded at once.
        encode_batch: prompts encoded at once.
    """

    latent_tokens: int
    latent_channels: int
    text_tokens: int
    pixels: int
    passes: int
    decode_batch: int
    encode_batch: int


def workload(
    spec: TrainSpec,
    geometry: BatchGeometry,
    passage: Passage,
    *,
    num_prompts: int,
    trained: int,
    adapted: Collection[str],
    trains_base: bool,
    folds: bool,
    checkpoints: bool,
) -> Workload:
    """Returns what each process of a run does with a model, for the memory estimate; arguments as in `Workload`."""
    passes = passage.passes
    return Workload(
        latent_tokens=passage.latent_tokens,
        latent_channels=passage.latent_channels,
        text_tokens=passage.text_tokens,
        pixels=passage.pixels,
        micro_batch=passes * _largest_batch(geometry.own_rows, geometry.micro_batch),
        update_batch=passes * min(geometry.micro_batch, geometry.own_prompts * geometry.forwards_per_prompt),
        decode_batch=min(passage.decode_batch, geometry.own_rows),
        encode_batch=passage.encode_batch,
        num_prompts=num_prompts,
        images_per_update=geometry.own_rows,
        trained=trained,
        adapted=adapted,
        trains_base=trains_base,
        has_average=spec.training.ema_decay is not None,
        has_narrow_moments=spec.training.optimizer == "adamw_8bit",
        folds=folds,
        checkpoints_gradients=checkpoints,
    )


def _largest_batch(rows: int, micro_batch: int) -> int:
    """Rows are split into as few batches as the micro-batch allows, all of one size (`egrpo.rollout.Sampler`)."""
    return -(-rows // -(-rows // micro_batch))
