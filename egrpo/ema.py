"""An exponential moving average of the adapter: what is evaluated and exported when the spec asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Averages named parameters: average = decay * average + (1 - decay) * parameter after every optimizer step.

    It starts at the parameters' first values, without bias correction: the policy starts as the base model, and so
    does the average.
    """

    def __init__(self, parameters: list[tuple[str, nn.Parameter]], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self._averages = {name: parameter.detach().clone() for name, parameter in parameters}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the averages towards the parameters."""
        for name, parameter in self._parameters:
            self._averages[name].lerp_(parameter, 1 - self._decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages in the parameters' place inside the block."""
        trained = [parameter.data for _, parameter in self._parameters]
        try:
            for name, parameter in self._parameters:
                parameter.data = self._averages[name]
            yield
        finally:
            for (_, parameter), data in zip(self._parameters, trained, strict=True):
                parameter.data = data

    def tensors(self) -> dict[str, Tensor]:
        """Returns the averages by name, on the CPU."""
        return {name: average.cpu() for name, average in self._averages.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the averages."""
        for name, average in self._averages.items():
            average.copy_(tensors[name])
