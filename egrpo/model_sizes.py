"""Reads what of a pipeline decides its memory: from loaded modules, or from the headers of a folder's files.

Free of torch, so that a job can be judged before anything is loaded.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

from egrpo.memory import ModelSizes, Shapes

_TOKEN_EMBEDDING = re.compile(r"shared|embed_tokens|token_embedding")


def sizes_of_modules(transformer: Any, autoencoder: Any, text_encoders: Sequence[Shapes]) -> ModelSizes:
    """Returns the sizes of loaded modules, and of text encoders that are loaded later, in the transformer's width.

    An adapter on the transformer is not counted.
    """
    own = [(name, weight) for name, weight in transformer.named_parameters() if ".lora_" not in name]
    element = own[0][1].element_size()
    decoder = {name: tuple(weight.shape) for name, weight in autoencoder.named_parameters()}
    return ModelSizes(
        transformer={name.replace(".base_layer", ""): tuple(weight.shape) for name, weight in own},
        weight_bytes=element,
        autoencoder_bytes=sum(weight.numel() * weight.element_size() for weight in autoencoder.parameters()),
        text_bytes=sum(map(_count, text_encoders)) * element,
        decoder_channels=decoder_channels(decoder),
        text_width=text_width(text_encoders),
    )


def sizes_of_folder(folder: Path, weight_bytes: int) -> ModelSizes:
    """Returns the sizes of a pipeline folder from the headers of its safetensors files; no weight is read.

    `weight_bytes` is the width in which a run will load them, whatever the files hold.
    """
    texts = text_encoder_shapes(folder)
    autoencoder = read_shapes(folder / "vae")
    return ModelSizes(
        transformer=read_shapes(folder / "transformer"),
        weight_bytes=weight_bytes,
        autoencoder_bytes=_count(autoencoder) * weight_bytes,
        text_bytes=sum(map(_count, texts)) * weight_bytes,
        decoder_channels=decoder_channels(autoencoder),
        text_width=text_width(texts),
    )


def text_encoder_shapes(folder: Path) -> list[Shapes]:
    """Returns the shapes of a pipeline folder's text encoders."""
    return [read_shapes(path) for path in sorted(folder.glob("text_encoder*")) if path.is_dir()]


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors in a folder's safetensors files, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        shapes |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    return shapes


def _count(shapes: Shapes) -> int:
    return sum(prod(shape) for shape in shapes.values())


def decoder_channels(autoencoder: Shapes) -> int:
    """Channels into the decoder's last convolution; where none has that name, the widest convolution's."""
    last = [shape[1] for name, shape in autoencoder.items() if name.endswith("decoder.conv_out.weight")]
    convolutions = (shape[1] for shape in autoencoder.values() if len(shape) >= 4)
    return last[0] if last else max(convolutions, default=0)


def text_width(encoders: Iterable[Shapes]) -> int:
    """Width of the widest token embedding, which every text encoder has."""
    widths = (
        shape[1]
        for shapes in encoders
        for name, shape in shapes.items()
        if len(shape) == 2 and _TOKEN_EMBEDDING.search(name)
    )
    return max(widths, default=0)
