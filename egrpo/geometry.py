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


@dataclass(frozen=True)
class BatchGeometry:
    """What one rollout draws, over all processes.

    Args:
        prompts: prompts of one rollout.
        groups: groups of every prompt: active steps of the rollout.
        group_size: images of one group.
        updates: optimizer steps on one rollout.
        micro_batch: images that pass the network at once.
        processes: processes that share the prompts.
    """

    prompts: int
    groups: int
    group_size: int
    updates: int
    micro_batch: int
    processes: int = 1

    @property
    def images(self) -> int:
        """Images that are scored and trained on in one rollout; the anchor of each prompt comes on top."""
        return self.prompts * self.groups * self.group_size

    def __str__(self) -> str:
        return (
            f"{self.images} images per rollout = {self.prompts} prompts x {self.groups} active steps x "
            f"{self.group_size} members, and {self.prompts} anchors; {self.updates} optimizer steps on them; "
            f"{self.micro_batch} images pass the network at once; {self.processes} processes"
        )


def batch_geometry(spec: TrainSpec, num_steps: int, micro_batch: int) -> BatchGeometry:
    """Returns the geometry of a run whose plan has `num_steps` active steps."""
    groups = spec.method.active_steps_per_update or num_steps
    training = spec.training
    return BatchGeometry(
        training.prompts_per_update, groups, spec.method.group_size, training.updates_per_rollout, micro_batch
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
        micro_batch=passes * _largest_batch(geometry.prompts + geometry.images, geometry.micro_batch),
        update_batch=passes * min(geometry.micro_batch, geometry.prompts),
        decode_batch=min(model.decode_batch_size, geometry.prompts + geometry.images),
        encode_batch=model.encode_batch_size,
        num_prompts=num_prompts,
        images_per_update=geometry.prompts + geometry.images,
        trained=sum(parameter.numel() for _, parameter in policy.parameters),
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
