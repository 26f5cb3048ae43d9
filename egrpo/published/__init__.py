"""What is published of the catalogue's base models: the shapes of their weights, and what decides how they are run.

So that memory and work of a job are known where neither torch nor a weight is. `architectures.json` is made by
`python -m egrpo.published.build` from the configurations in that module, which name their sources. Free of torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from egrpo.memory import ModelSizes, Shapes

FILE = Path(__file__).with_name("architectures.json")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_RANGE = re.compile(r"\[(\d+)-(\d+)\]")


@dataclass(frozen=True)
class Architecture:
    """A base model as it is published.

    Args:
        source: where the numbers come from.
        transformer: shapes of the transformer's weights by full name.
        transformer_buffers: numbers that it holds beside them.
        hidden_width: width of its activations.
        autoencoder_parameters: of encoder and decoder.
        decoder_channels: channels that enter the decoder's last convolution.
        decoder_flops_per_pixel: of decoding an image.
        text_parameters: of all text encoders.
        text_width: width of the widest text encoder.
        text_length: text tokens that a prompt is cut to.
        text_tokens: text tokens of one prompt as the network sees them, at most.
        encode_batch: prompts encoded at once.
        native_size: height and width of images unless catalogue or spec say otherwise, in pixels.
        pixels_per_token: height and width of what one latent token draws, in pixels.
        latent_channels: numbers of one latent token.
        guided_above: guidance above which an image passes the network twice for one velocity; None: it never does.
        lora_targets: regular expressions over full names of linear layers, by the name of the set.
    """

    source: str
    transformer: Shapes
    transformer_buffers: int
    hidden_width: int
    autoencoder_parameters: int
    decoder_channels: int
    decoder_flops_per_pixel: int
    text_parameters: int
    text_width: int
    text_length: int
    text_tokens: int
    encode_batch: int
    native_size: int
    pixels_per_token: int
    latent_channels: int
    guided_above: float | None
    lora_targets: Mapping[str, str]

    @property
    def transformer_parameters(self) -> int:
        """Numbers of the transformer that could be trained."""
        return sum(map(prod, self.transformer.values()))

    @property
    def linear_layers(self) -> list[str]:
        """Names of the layers that an adapter can be put on."""
        return [
            name.removesuffix(".weight")
            for name, shape in self.transformer.items()
            if name.endswith(".weight") and (len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1)))
        ]

    def sizes(self, weight_bytes: int, other_bytes: int) -> ModelSizes:
        """Returns the sizes for the memory estimate; bytes of a number of the transformer, and of everything else."""
        return ModelSizes(
            transformer=self.transformer,
            weight_bytes=weight_bytes,
            autoencoder_bytes=self.autoencoder_parameters * other_bytes,
            text_bytes=self.text_parameters * other_bytes,
            decoder_channels=self.decoder_channels,
            text_width=self.text_width,
        )

    def passes(self, guidance: float) -> int:
        """Returns how many times an image passes the network for one velocity."""
        return 1 if self.guided_above is None or guidance <= self.guided_above else 2

    def to_json(self) -> dict[str, Any]:
        """Returns what `architectures` reads."""
        return {**vars(self), "transformer": folded_names(self.transformer)}


@lru_cache(maxsize=1)
def architectures() -> Mapping[str, Architecture]:
    """Returns the architectures by the id that the catalogue gives a model."""
    document = json.loads(FILE.read_text())
    return {
        name: Architecture(**{**fields, "transformer": unfolded_names(fields["transformer"])})
        for name, fields in document.items()
    }


def folded_names(shapes: Shapes) -> dict[str, list[int]]:
    """Returns shapes with the blocks of a stack in one line: `blocks.[0-18].up.weight`."""
    stacks: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    folded: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        found = _NUMBER.search(name)
        if found is None:
            folded[name] = list(shape)
        else:
            stacks.setdefault((_NUMBER.sub("#", name, count=1), shape), []).append(int(found[0]))
    for (pattern, shape), numbers in stacks.items():
        for first, last in _runs(sorted(numbers)):
            folded[pattern.replace("#", f"[{first}-{last}]", 1)] = list(shape)
    return folded


def unfolded_names(folded: Mapping[str, list[int]]) -> dict[str, tuple[int, ...]]:
    """Returns what `folded_names` was given; the order of names is another."""
    shapes = {}
    for name, shape in folded.items():
        found = _RANGE.search(name)
        numbers = range(int(found[1]), int(found[2]) + 1) if found else [0]
        for number in numbers:
            shapes[_RANGE.sub(str(number), name, count=1)] = tuple(shape)
    return shapes


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Returns first and last of each stretch without a gap."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
