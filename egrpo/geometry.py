"""How many images an update means, and how the network meets them: the numbers that people get wrong.

One line of the log says them at the start; the memory estimate starts from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from egrpo.config import TrainSpec
from egrpo.lora import adapted_layers, can_fold
from egrpo.memory import MemoryEstimate, Shapes, Workload, estimate
from egrpo.model_sizes import sizes_of_modules, text_encoder_shapes
from egrpo.models.adapter import ModelAdapter
from egrpo.policy import Policy
from egrpo.sharding import own_size


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
            f"{self.processes} processes"
        )


def batch_geometry(spec: TrainSpec, micro_batch: int) -> BatchGeometry:
    """Returns the geometry of a run."""
    method, training = spec.method, spec.training
    return BatchGeometry(
        prompts=training.prompts_per_update * training.minibatches_per_rollout,
        images_per_prompt=method.images_per_prompt,
        minibatches=training.minibatches_per_rollout,
        passes=training.updates_per_rollout,
        draws_anchor=method.draws_anchor,
        forwards_per_prompt=1 if method.draws_anchor else method.group_size,
        micro_batch=micro_batch,
    )


def expected_memory(
    spec: TrainSpec, model: ModelAdapter, policy: Policy, geometry: BatchGeometry, num_prompts: int
) -> MemoryEstimate:
    """Returns the memory estimate of a run whose model is loaded, and whose text encoders are not yet."""
    transformer = model.transformer
    layers = adapted_layers(transformer)
    trains_base = not layers
    own = [name.removesuffix(".weight") for name, weight in transformer.named_parameters() if weight.requires_grad]
    passes = model.passes_per_velocity(spec.method.guidance_scale)
    work = Workload(
        latent_tokens=model.num_tokens,
        latent_channels=model.initial_latents([0]).shape[-1],
        text_tokens=model.max_sequence_length,
        pixels=model.height * model.width,
        micro_batch=passes * _largest_batch(geometry.rows, geometry.micro_batch),
        update_batch=passes * min(geometry.micro_batch, geometry.prompts * geometry.forwards_per_prompt),
        decode_batch=min(model.decode_batch_size, geometry.rows),
        encode_batch=model.encode_batch_size,
        num_prompts=num_prompts,
        images_per_update=geometry.rows,
        trained=sum(own_size(parameter) for _, parameter in policy.parameters),
        adapted=own if trains_base else list(layers),
        trains_base=trains_base,
        has_average=spec.training.ema_decay is not None,
        folds=bool(layers) and can_fold(layers.values()),
        checkpoints_gradients=transformer.is_gradient_checkpointing,
    )
    return estimate(sizes_of_modules(transformer, model.vae, _text_encoders(model)), work)


def _text_encoders(model: ModelAdapter) -> list[Shapes]:
    """The shapes of text encoders on this disk; none where they are still to be downloaded."""
    if model.source is None:
        return []
    source, revision = model.source
    if Path(source).is_dir():
        return text_encoder_shapes(Path(source))
    try:
        return text_encoder_shapes(Path(snapshot_download(source, revision=revision, local_files_only=True)))
    except (OSError, ValueError):
        return []


def _largest_batch(rows: int, micro_batch: int) -> int:
    """Rows are split into as few batches as the micro-batch allows, all of one size (`egrpo.rollout.Sampler`)."""
    return -(-rows // -(-rows // micro_batch))
