"""The memory that a run will need, from its loaded model; `egrpo.forecast` has it from what is published of a model."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from egrpo.config import TrainSpec
from egrpo.geometry import BatchGeometry, Passage, workload
from egrpo.lora import adapted_layers, can_fold
from egrpo.memory import MemoryEstimate, Shapes, estimate
from egrpo.model_sizes import sizes_of_modules, text_encoder_shapes
from egrpo.models.adapter import ModelAdapter
from egrpo.policy import Policy
from egrpo.sharding import own_size


def expected_memory(
    spec: TrainSpec, model: ModelAdapter, policy: Policy, geometry: BatchGeometry, num_prompts: int
) -> MemoryEstimate:
    """Returns the memory estimate of a run whose model is loaded, and whose text encoders are not yet."""
    transformer = model.transformer
    layers = adapted_layers(transformer)
    own = [name.removesuffix(".weight") for name, weight in transformer.named_parameters() if weight.requires_grad]
    passage = Passage(
        latent_tokens=model.num_tokens,
        latent_channels=model.initial_latents([0]).numel() // model.num_tokens,
        text_tokens=model.num_text_tokens,
        pixels=model.height * model.width,
        passes=model.passes_per_velocity(spec.method.guidance_scale),
        decode_batch=model.decode_batch_size,
        encode_batch=model.encode_batch_size,
    )
    work = workload(
        spec,
        geometry,
        passage,
        num_prompts=num_prompts,
        trained=sum(own_size(parameter) for _, parameter in policy.parameters),
        adapted=list(layers) or own,
        trains_base=not layers,
        folds=bool(layers) and can_fold(layers.values()),
        checkpoints=transformer.is_gradient_checkpointing,
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
