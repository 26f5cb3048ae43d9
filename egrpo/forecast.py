"""What a run will need, from its spec and what is published of its base model, before anything is loaded.

Memory goes through the trainer's own formulas (`egrpo.geometry`, `egrpo.memory`), work through `egrpo.compute`. Free of
torch. `egrpo.expected_memory` says the same of a model that is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from egrpo import catalogue
from egrpo.compute import PassFlops, pass_flops
from egrpo.config import HubModel, LoRASpec, TrainSpec
from egrpo.geometry import (
    Passage,
    batch_geometry,
    checkpoints_gradients,
    decode_batch_size,
    folds_adapter,
    micro_batch_size,
    workload,
)
from egrpo.lora_targets import targeted
from egrpo.memory import CPU_HEAP, FLOAT32, MemoryEstimate, estimate
from egrpo.published import Architecture, architectures
from egrpo.schedule import MergePlan

Device = Literal["gpu", "cpu"]
# What the trainer's process takes before it has loaded anything, on a CPU: docs/memory.md.
_RUNTIME_BYTES = 480 * 2**20


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes of one process at its peak, and how it came to that.

    Args:
        peak_bytes: on a GPU what its allocator gives out, on a CPU what is resident.
        held_bytes: of it, the weights, and on a CPU the runtime.
        phase: the phase that decides the peak.
        precision: what the network computes in.
        micro_batch: images that pass the network at once.
    """

    peak_bytes: int
    held_bytes: int
    phase: str
    precision: str
    micro_batch: int


@dataclass(frozen=True)
class Work:
    """Operations of a run without evaluations: the fewest and the most, as the method draws its steps."""

    per_pass: int
    per_update: tuple[int, int]
    in_all: tuple[int, int]


@dataclass(frozen=True)
class _Model:
    """A base model at the resolution of a spec."""

    architecture: Architecture
    default_targets: str
    height: int
    width: int

    @property
    def latent_tokens(self) -> int:
        side = self.architecture.pixels_per_token
        return (self.height // side) * (self.width // side)


def model_of(spec: TrainSpec) -> catalogue.ModelEntry | None:
    """Returns the model of the catalogue that a spec names by its id, or by its repository and commit."""
    named = spec.base_model
    if not isinstance(named, HubModel):
        return catalogue.MODELS.get(named)
    same = (
        entry for entry in catalogue.MODELS.values() if (entry.repo, entry.revision) == (named.repo, named.revision)
    )
    return next(same, None)


def forecast_memory(spec: TrainSpec, device: Device, processes: int = 1) -> MemoryForecast | None:
    """Returns the memory of a run on such a device; None for a base model of which nothing is published here.

    Raises:
        ConfigError: `training.lora.targets` names a layer that the model does not have.
    """
    model = _model(spec)
    if model is None:
        return None
    published, training, on_gpu = model.architecture, spec.training, device == "gpu"
    precision = training.precision
    if precision == "auto":
        precision = "bfloat16" if on_gpu else "float32"
    narrow = FLOAT32 if precision == "float32" else 2
    sizes = published.sizes(FLOAT32 if training.mode == "full" else narrow, narrow)
    adapted, trained = _trained(published, training.lora, model.default_targets)
    num_tokens = model.latent_tokens + published.text_length
    micro_batch = training.micro_batch_size or micro_batch_size(published.hidden_width, num_tokens, on_gpu=on_gpu)
    geometry = batch_geometry(spec, micro_batch, processes)
    pixels = model.height * model.width
    passage = Passage(
        latent_tokens=model.latent_tokens,
        latent_channels=published.latent_channels,
        text_tokens=published.text_tokens,
        pixels=pixels,
        passes=published.passes(spec.method.guidance_scale),
        decode_batch=decode_batch_size(pixels, on_gpu=on_gpu),
        encode_batch=published.encode_batch,
    )
    # Each process of a sharded full fine-tune holds its share of weights, gradients and moments.
    share = processes if training.sharding == "fsdp2" else 1
    work = workload(
        spec,
        geometry,
        passage,
        num_prompts=sum(map(len, spec.split_prompts())),
        trained=trained // share,
        adapted=adapted,
        trains_base=training.lora is None,
        folds=training.lora is not None and folds_adapter(_count(published, adapted), sizes.weight_bytes),
        checkpoints=checkpoints_gradients(training.gradient_checkpointing, published.transformer_parameters),
    )
    found = estimate(sizes, work)
    return _forecast(found, _held(published, sizes.weight_bytes, found, share), device, precision, micro_batch)


def _held(published: Architecture, weight_bytes: int, found: MemoryEstimate, share: int) -> int:
    sharded = published.transformer_parameters * weight_bytes
    return found.weights - sharded + sharded // share + published.transformer_buffers * weight_bytes


def _forecast(found: MemoryEstimate, held: int, device: Device, precision: str, micro_batch: int) -> MemoryForecast:
    if device == "cpu":
        held += _RUNTIME_BYTES
    growth = found.growth_bytes * (CPU_HEAP if device == "cpu" else 1)
    return MemoryForecast(held + int(growth), held, found.largest_phase, precision, micro_batch)


def forecast_work(spec: TrainSpec, plan: MergePlan) -> Work | None:
    """Returns the operations of a run; None for a base model of which nothing is published here."""
    model = _model(spec)
    if model is None:
        return None
    published, method, training = model.architecture, spec.method, spec.training
    flops = pass_flops(published.transformer, model.latent_tokens, published.text_tokens, published.hidden_width)
    ends = zip(method.network_evaluations(plan), method.trained_latents(plan), strict=True)
    images = method.images_per_prompt + method.draws_anchor
    decoding = images * model.height * model.width * published.decoder_flops_per_pixel
    update = _update(spec, flops, published)
    passes = published.passes(method.guidance_scale)
    minibatches, times = training.minibatches_per_rollout, training.updates_per_rollout
    # What later minibatches will need of the first policy is asked before the first update.
    remembered = flops.forward * (minibatches - 1) / minibatches
    per_prompt = [
        decoding + passes * (drawn * flops.forward + trained * (times * update + remembered)) for drawn, trained in ends
    ]
    prompts = training.prompts_per_update * minibatches
    fewest, most = (int(prompts * each / (minibatches * times)) for each in per_prompt)
    steps = training.steps
    return Work(flops.forward, (fewest, most), (steps * fewest, steps * most))


def _update(spec: TrainSpec, flops: PassFlops, published: Architecture) -> int:
    training = spec.training
    again = checkpoints_gradients(training.gradient_checkpointing, published.transformer_parameters)
    found = flops.update(trains_base=training.lora is None, checkpoints_gradients=again)
    return found + (flops.forward if training.kl_weight > 0 else 0)


def _model(spec: TrainSpec) -> _Model | None:
    entry = model_of(spec)
    if entry is None or entry.id not in architectures():
        return None
    published = architectures()[entry.id]
    # By its repository a model has its family's defaults, not the catalogue's.
    by_id = spec.base_model == entry.id
    height, width = (entry.height, entry.width) if by_id else (published.native_size, published.native_size)
    targets = entry.default_lora_targets if by_id else catalogue.DEFAULT_LORA_TARGETS
    length = entry.max_sequence_length if by_id else None
    if length is not None:
        beside = published.text_tokens - published.text_length
        published = replace(published, text_length=length, text_tokens=length + beside)
    return _Model(published, targets, spec.height or height, spec.width or width)


def _trained(published: Architecture, lora: LoRASpec | None, default_targets: str) -> tuple[list[str], int]:
    """Returns the layers whose inputs the backward pass needs, and how many numbers are trained."""
    if lora is None:
        own = [name.removesuffix(".weight") for name in published.transformer]
        return own, published.transformer_parameters
    layers = targeted(published.linear_layers, lora.targets or default_targets, published.lora_targets)
    shapes = (published.transformer[f"{name}.weight"] for name in layers)
    return layers, sum(lora.rank * (shape[0] + shape[1]) for shape in shapes)


def _count(published: Architecture, layers: list[str]) -> int:
    return sum(prod(published.transformer[f"{name}.weight"]) for name in layers)
