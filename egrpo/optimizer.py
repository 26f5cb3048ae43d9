"""The optimizer, its learning rate at every step, and its state as tensors.

The learning rate is a pure function of the step, so a resumed run needs nothing from a scheduler but the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from egrpo.config import TrainingSpec
from egrpo.errors import ConfigError
from egrpo.sharding import own_share

Named = Sequence[tuple[str, nn.Parameter]]


def check_optimizer(spec: TrainingSpec, device: torch.device) -> None:
    """Refuses an optimizer that this machine cannot run; called before the model is loaded.

    Raises:
        ConfigError: `adamw_8bit` without a CUDA device or without bitsandbytes.
    """
    if spec.optimizer != "adamw_8bit":
        return
    if device.type != "cuda":
        raise ConfigError(
            f"/training/optimizer: 'adamw_8bit' needs a CUDA device, here is {device.type}; allowed: 'adamw'"
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "/training/optimizer: 'adamw_8bit' needs the package bitsandbytes (pip install bitsandbytes); "
            "allowed without it: 'adamw'"
        )


def make_optimizer(parameters: Named, spec: TrainingSpec) -> torch.optim.Optimizer:
    """Returns AdamW over the parameters, with moments in float32 or, for `adamw_8bit`, in blocks of 8 bits.

    The 8-bit moments are those of Dettmers et al., arXiv 2110.02861, by bitsandbytes.
    """
    settings: dict[str, Any] = {
        "lr": spec.learning_rate,
        "betas": (spec.adam_beta1, spec.adam_beta2),
        "weight_decay": spec.weight_decay,
    }
    trained = [parameter for _, parameter in parameters]
    if spec.optimizer == "adamw_8bit":
        import bitsandbytes

        optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(trained, **settings)
        return optimizer
    return torch.optim.AdamW(trained, **settings)


def learning_rates(spec: TrainingSpec) -> Callable[[int], float]:
    """Returns the learning rate of an optimizer step as a function of how many were finished before it.

    The curves are those of `diffusers.optimization.get_scheduler`. Its warm-up begins at 0, which would spend a whole
    rollout on a step of size 0; ours is one step ahead until the warm-up ends: step s has (s + 1)/warmup_steps.
    """
    name = spec.lr_schedule
    if name == "constant" and spec.warmup_steps:
        name = "constant_with_warmup"
    # The curve is a function inside the scheduler; the optimizer that a scheduler must have is none of ours.
    scheduler = get_scheduler(
        name,
        torch.optim.SGD([torch.zeros(1)], lr=spec.learning_rate),
        step_rules=spec.lr_step_rules,
        num_warmup_steps=spec.warmup_steps,
        num_training_steps=spec.steps,
        num_cycles=0.5 if name == "cosine" else spec.lr_cycles,
        power=spec.lr_power,
    )
    factor: Callable[[int], float] = scheduler.lr_lambdas[0]
    return lambda step: spec.learning_rate * factor(step + 1 if step < spec.warmup_steps else step)


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Named) -> dict[str, Tensor]:
    """Returns the state of every parameter as `name:key`, sharded where it is; a Python integer becomes int64."""
    tensors = {}
    for name, parameter in parameters:
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}:{key}"] = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, parameters: Named, tensors: Mapping[str, Tensor]) -> None:
    """Restores what `optimizer_tensors` returned.

    Raises:
        KeyError: a tensor is of a parameter that is not trained.
    """
    by_name = dict(parameters)
    for parameter in by_name.values():
        optimizer.state[parameter] = {}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(":")
        # torch's AdamW keeps its count of steps on the CPU as a float, bitsandbytes as a Python integer.
        if key == "step":
            value: Any = tensor if tensor.is_floating_point() else int(tensor)
        else:
            # Moments have the parameter's shape; bitsandbytes keeps others, of parameters that are not sharded.
            value = own_share(tensor.to(by_name[name].device), by_name[name])
        optimizer.state[by_name[name]][key] = value
