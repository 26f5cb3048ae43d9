"""The trained adapter: low-rank matrices on the transformer's linear layers, by peft, and how it is switched.

Three states of the transformer matter: with the adapter (the policy), without it (the base, for the KL term), and with
the adapter folded into the weights (rollout and evaluation: the same function without the cost of two small products
per layer). Folding swaps copies in and puts the original tensors back, so that nothing drifts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Conv2d as LoRAConv2d
from peft.tuners.lora import Linear as LoRALinear
from torch import nn

from egrpo.config import LoRASpec
from egrpo.geometry import folds_adapter
from egrpo.lora_targets import targeted
from egrpo.memory import FLOAT32
from egrpo.models.adapter import ModelAdapter

ADAPTER = "default"


def add_adapter(model: ModelAdapter, spec: LoRASpec, default_targets: str, seed: int) -> list[tuple[str, nn.Parameter]]:
    """Adds the adapter to a frozen model and returns its parameters by name, float32, in a fixed order.

    The first factor is drawn from `seed`, the second is zero: the policy starts as the base.
    """
    transformer = model.transformer
    names = target_modules(transformer, spec.targets or default_targets, model.lora_target_sets)
    torch.manual_seed(seed)
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=names, init_lora_weights=True)
    transformer.add_adapter(config, adapter_name=ADAPTER)
    parameters = sorted((n, p) for n, p in transformer.named_parameters() if ".lora_" in n)
    for _, parameter in parameters:
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return parameters


def target_modules(transformer: nn.Module, targets: str | Sequence[str], target_sets: Mapping[str, str]) -> list[str]:
    """Returns full names of the linear layers of a named set, or of those that end in one of the given names.

    `target_sets` is the family's: regular expressions over full names.

    Raises:
        ConfigError: a name fits no linear layer; the message lists the kinds of layers there are.
    """
    linear = [name for name, module in transformer.named_modules() if is_linear(module)]
    return targeted(linear, targets, target_sets)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, or a convolution that is one at every position."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


@contextmanager
def base_weights(transformer: Any) -> Iterator[None]:
    """Switches the adapter off inside the block."""
    transformer.disable_adapters()
    try:
        yield
    finally:
        transformer.enable_adapters()


@contextmanager
def folded_weights(transformer: nn.Module) -> Iterator[None]:
    """Folds the adapter into the weights inside the block, if that is exact and affordable; otherwise does nothing."""
    layers = list(adapted_layers(transformer).values())
    if not can_fold(layers):
        yield
        return
    originals = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer, original in zip(layers, originals, strict=True):
            layer.get_base_layer().weight.data = original + layer.get_delta_weight(ADAPTER)
            layer.merged_adapters.append(ADAPTER)
        yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer.get_base_layer().weight.data = original
            layer.merged_adapters.clear()


def adapted_layers(transformer: nn.Module) -> dict[str, LoRALinear | LoRAConv2d]:
    """Returns the layers that carry the adapter, by their full names."""
    kinds = (LoRALinear, LoRAConv2d)
    return {name: module for name, module in transformer.named_modules() if isinstance(module, kinds)}


def can_fold(layers: Iterable[LoRALinear | LoRAConv2d]) -> bool:
    """Whether folding the adapter into these layers is exact, and affordable."""
    weights = [layer.get_base_layer().weight for layer in layers]
    are_float32 = all(weight.dtype == torch.float32 for weight in weights)
    return are_float32 and folds_adapter(sum(weight.numel() for weight in weights), FLOAT32)
