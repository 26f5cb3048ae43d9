"""An exponential moving average of the adapter: what is evaluated and exported when the spec asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from egrpo.sharding import own_share


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
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Swaps contents: FSDP2 gathers from the storage that it made, and sees no other."""
        for name, parameter in self._parameters:
            trained = parameter.detach().clone()
            parameter.copy_(self._averages[name])
            self._averages[name].copy_(trained)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the averages by name, sharded where the parameters are."""
        return dict(self._averages)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the averages."""
        for name, average in self._averages.items():
            average.copy_(own_share(tensors[name], average))
