"""How much memory a run will need, from the shapes of its weights and the numbers of its spec. Free of torch.

`estimate` adds up weights, adapter, optimizer and the largest of the phases (encoding, rollout, decoding, update). It
knows no family: linear layers are grouped into blocks by their names, and activations follow from the layers' widths.
What it cannot see: reward models, the runtime itself, another process on the device. How the factors below were found
and how far off they are: docs/memory.md; the table is made by bench/memory.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from statistics import mode

Shapes = Mapping[str, tuple[int, ...]]

FLOAT32 = 4
# On a CPU the trainer tells glibc to keep freed blocks (egrpo/__main__.py), which is faster and leaves gaps: measured
# growth was 1.5 to 1.75 times what is alive.
CPU_HEAP = 1.6
# Adapter parameters are float32: value, gradient and two moments of Adam.
_TRAINED_BYTES, _GRADIENT_BYTES, _MOMENT_BYTES = 4, 4, 8
# bitsandbytes 0.50 keeps each moment in one byte, and a float32 for the scale of every 256 of them. Tensors of fewer
# than 4096 numbers stay in float32; they are left out of account.
_NARROW_MOMENT_BYTES = 2 * (1 + 4 / 256)
# Numbers that a block keeps for the backward pass, per number that its linear layers put out. The inputs of adapted
# layers come on top. Counted by torch's hooks on saved tensors.
_SAVED_PER_OUTPUT = 1.5
# Numbers alive at once in the largest block without gradients, likewise: outputs, their copies for attention and the
# rotary embedding in float32.
_TRANSIENT_PER_OUTPUT = 3.4
# Numbers alive at once per pixel while decoding, per channel of the decoder's last convolution.
_DECODER_FACTOR = 10.0
# Copies of all latents of a rollout at its peak: latents, velocities, their micro-batches, the next latents, branches,
# tails and the final rows.
_LATENT_COPIES = 7
# Width of a text encoder's activations alive at once, and of one attention head.
_TEXT_FACTOR, _TEXT_HEAD = 12, 64

_BLOCK = re.compile(r"^(.*?\.\d+)\.(.+)\.weight$")
_NOT_PER_TOKEN = re.compile(r"norm|modulation|_mod\.|ada_?ln|time|embed|scale_shift")
_TEXT_STREAM = re.compile(r"add_|_context|txt_")
# Blocks that see one stream alone, of Z-Image and Lumina.
LATENT_BLOCK, TEXT_BLOCK = re.compile(r"^noise_refiner\."), re.compile(r"^context_refiner\.")


@dataclass(frozen=True)
class ModelSizes:
    """What of a pipeline decides how much memory it takes.

    Args:
        transformer: shapes of the transformer's weights by full name.
        weight_bytes: bytes of one number of the transformer.
        autoencoder_bytes: all of the autoencoder's weights.
        text_bytes: all text encoders' weights.
        decoder_channels: channels that enter the decoder's last convolution.
        text_width: width of the widest text encoder.
    """

    transformer: Shapes
    weight_bytes: int
    autoencoder_bytes: int
    text_bytes: int
    decoder_channels: int
    text_width: int


@dataclass(frozen=True)
class Workload:
    """What a run does with a model.

    Args:
        latent_tokens: of one image, as the network sees them.
        latent_channels: numbers of one latent token.
        text_tokens: of one prompt.
        pixels: of one image.
        micro_batch: images that pass the network at once.
        update_batch: latents that pass the network at once with gradients.
        decode_batch: images decoded at once.
        encode_batch: prompts encoded at once.
        num_prompts: prompts whose embeddings are kept.
        images_per_update: latents alive at the end of a rollout, of one process.
        trained: parameters that are trained.
        adapted: names of the linear layers whose inputs the backward pass needs.
        trains_base: whether the trained parameters are the transformer's own.
        has_average: whether a moving average of the trained parameters is kept.
        has_narrow_moments: whether the optimizer keeps its moments in 8 bits.
        folds: whether the rollout holds a second copy of the adapted layers.
        checkpoints_gradients: whether activations are computed again in the backward pass.
    """

    latent_tokens: int
    latent_channels: int
    text_tokens: int
    pixels: int
    micro_batch: int
    update_batch: int
    decode_batch: int
    encode_batch: int
    num_prompts: int
    images_per_update: int
    trained: int
    adapted: Collection[str]
    trains_base: bool = False
    has_average: bool = False
    has_narrow_moments: bool = False
    folds: bool = False
    checkpoints_gradients: bool = False


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a run: what is always there, and what each phase adds to it."""

    weights: int
    text_encoders: int
    adapter: int
    phases: Mapping[str, int]

    @property
    def largest_phase(self) -> str:
        """The phase that decides the peak."""
        return max(self.phases, key=lambda name: self._total(name))

    @property
    def peak_bytes(self) -> int:
        """Peak over the run."""
        return self._total(self.largest_phase)

    @property
    def growth_bytes(self) -> int:
        """What the peak adds to a process that holds transformer and autoencoder, and no text encoders yet."""
        return self.peak_bytes - self.weights

    def _total(self, phase: str) -> int:
        # Text encoders are dropped when all prompts are encoded; the optimizer comes with the first update.
        others = self.text_encoders if phase == "encoding" else self.adapter
        return self.weights + others + self.phases[phase]


@dataclass(frozen=True)
class _Block:
    """Numbers per image of one block of the transformer: put out by its linear layers, and into adapted ones."""

    outputs: int
    adapted_inputs: int
    hidden: int


def estimate(sizes: ModelSizes, work: Workload) -> MemoryEstimate:
    """Returns the memory that a run will need."""
    element = sizes.weight_bytes
    blocks = list(_blocks(sizes.transformer, work))
    widest = max((block.outputs for block in blocks), default=0)
    saved = [
        # Adapters compute in float32: a narrower input is kept in both widths.
        _SAVED_PER_OUTPUT * block.outputs * element
        + block.adapted_inputs * (element if element == FLOAT32 else element + FLOAT32)
        for block in blocks
    ]
    if work.checkpoints_gradients:
        kept = sum(block.hidden for block in blocks) * element + max(saved, default=0)
    else:
        kept = sum(saved)
    transient = _TRANSIENT_PER_OUTPUT * widest * element
    folded = sum(prod(sizes.transformer[f"{name}.weight"]) for name in work.adapted) * element if work.folds else 0
    latents = work.images_per_update * work.latent_tokens * work.latent_channels * FLOAT32
    embeddings = work.text_tokens * sizes.text_width * element
    all_embeddings = work.num_prompts * embeddings
    rollout = all_embeddings + folded + _LATENT_COPIES * latents
    phases = {
        "encoding": all_embeddings + _encoding(sizes, work),
        "rollout": rollout + work.micro_batch * (transient + embeddings),
        "decoding": rollout + work.decode_batch * work.pixels * sizes.decoder_channels * _DECODER_FACTOR * element,
        "update": all_embeddings + 3 * latents + work.update_batch * (kept + transient + embeddings),
    }
    copies = (not work.trains_base) + work.has_average
    moments = _NARROW_MOMENT_BYTES if work.has_narrow_moments else _MOMENT_BYTES
    state = _GRADIENT_BYTES + moments + copies * _TRAINED_BYTES
    weights = sum(prod(shape) for shape in sizes.transformer.values()) * element + sizes.autoencoder_bytes
    return MemoryEstimate(
        weights, sizes.text_bytes, int(work.trained * state), {name: int(value) for name, value in phases.items()}
    )


def _encoding(sizes: ModelSizes, work: Workload) -> int:
    activations = _TEXT_FACTOR * work.text_tokens * sizes.text_width
    scores = 2 * max(1, sizes.text_width // _TEXT_HEAD) * work.text_tokens**2
    return min(work.encode_batch, work.num_prompts) * (activations + scores) * sizes.weight_bytes


@dataclass(frozen=True)
class BlockLayer:
    """A linear layer of a block: how many tokens of an image pass it, and the widths of what goes out and in."""

    name: str
    tokens: int
    wide_out: int
    wide_in: int


def block_layers(shapes: Shapes, latent_tokens: int, text_tokens: int) -> dict[str, list[BlockLayer]]:
    """Returns the linear layers of a transformer by block: those whose names share everything up to the first number.

    Where a block has layers of its own for the text, each layer sees its own stream; elsewhere all see both.
    """
    named: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        found = _BLOCK.match(name)
        # A convolution, as in Sana's feed-forward layers, gives its outputs at every position, as a linear layer does.
        if found and len(shape) in (2, 4) and not _NOT_PER_TOKEN.search(found[2]):
            named.setdefault(found[1], {})[found[2]] = shape[:2]
    blocks: dict[str, list[BlockLayer]] = {}
    for block, linear in named.items():
        two_streams = any(_TEXT_STREAM.search(name) for name in linear)
        for name, (wide_out, wide_in) in linear.items():
            of_text = TEXT_BLOCK.search(block) or (two_streams and _TEXT_STREAM.search(name))
            of_latents = LATENT_BLOCK.search(block) or (two_streams and not of_text)
            tokens = (0 if of_text else latent_tokens) + (0 if of_latents else text_tokens)
            blocks.setdefault(block, []).append(BlockLayer(f"{block}.{name}", tokens, wide_out, wide_in))
    return blocks


def _blocks(shapes: Shapes, work: Workload) -> Iterator[_Block]:
    for layers in block_layers(shapes, work.latent_tokens, work.text_tokens).values():
        outputs, inputs = 0, 0
        for layer in layers:
            outputs += layer.tokens * layer.wide_out
            # Queries, keys and values read one and the same input.
            shares_input = re.search(r"(to|add)_[kv](_proj)?$", layer.name)
            inputs += layer.tokens * layer.wide_in if layer.name in work.adapted and not shares_input else 0
        hidden = mode(layer.wide_in for layer in layers)
        yield _Block(outputs, inputs, (work.latent_tokens + work.text_tokens) * hidden)
