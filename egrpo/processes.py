"""Several processes that train one policy, as `accelerate launch` or `torchrun` start them; usually there is one.

Every process makes the same draws and takes its share of their rows: prompts, their seeds and their noise. It draws and
scores its own rollouts, and the gradients are averaged once per update, so that the number of processes changes
nothing but rounding. All processes hold the same policy; only the main one writes.

What every process must call, all of them in the same order: `add`, `add_numbers`, `each`, `in_shares`,
`merged_metrics`, `wait`, and the checks of `AgreedStop`. A process that fails ends the others through its launcher.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from egrpo.errors import ConfigError, StopRequested

Item = TypeVar("Item")

# How metrics of equal shares become those of the whole, by how their names end; the others are means.
_MERGED: dict[str, Callable[[Sequence[float]], float]] = {
    "zero_variance_groups": sum,
    "flat_groups": sum,
    "evaluations": sum,
    "images_per_second": sum,
    "best": max,
    "worst": min,
    "seconds": max,
    "peak_memory_bytes": max,
}


class Processes:
    """This process among those that train together."""

    def __init__(self, index: int = 0, count: int = 1, device: torch.device | None = None) -> None:
        self.index, self.count = index, count
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @classmethod
    def of_launcher(cls) -> Processes:
        """Joins the processes that the launcher's environment names; one process joins nothing."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes, state.device)

    @staticmethod
    def leave() -> None:
        """Ends this process's part of the group.

        Its threads may live on, where torch's caches hold the group: `egrpo/__main__.py` ends the process past them.
        """
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this process writes events, checkpoints and results."""
        return self.index == 0

    def check_divides(self, prompts_per_update: int) -> None:
        """Refuses a number of prompts that does not give every process the same share.

        Raises:
            ConfigError: the message names the numbers of processes that are allowed.
        """
        if prompts_per_update % self.count:
            allowed = [count for count in range(1, prompts_per_update + 1) if prompts_per_update % count == 0]
            raise ConfigError(
                f"/training/prompts_per_update: {prompts_per_update} prompts cannot be shared by {self.count} "
                f"processes; allowed numbers of processes: {allowed}, or a multiple of {self.count} prompts"
            )

    def share(self, rows: Sequence[Item]) -> Sequence[Item]:
        """Returns this process's part of the rows that all processes have together."""
        size = len(rows) // self.count
        return rows[self.index * size : (self.index + 1) * size]

    def add(self, *tensors: Tensor) -> None:
        """Replaces every tensor by its sum over the processes, in one exchange."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.reshape(tensor.shape))

    def add_numbers(self, values: Sequence[float]) -> list[float]:
        """Returns the sums of numbers over the processes, in float64."""
        total = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        self.add(total)
        return [float(value) for value in total]

    def each(self, item: Item) -> list[Item]:
        """Returns what every process gives, in their order."""
        if self.count == 1:
            return [item]
        items: list[Any] = [None] * self.count
        dist.all_gather_object(items, item)
        return items

    def in_shares(self, num_rows: int, draw: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns `draw` of all rows, each row drawn by one process.

        The shares have one size, as their draws must look for a stop equally often; rows that are missing for it are
        drawn twice.
        """
        if self.count == 1:
            return draw(torch.arange(num_rows, device=self.device))
        size = -(-num_rows // self.count)
        rows = torch.arange(self.index * size, (self.index + 1) * size, device=self.device) % num_rows
        own = draw(rows).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(parts, own)
        return torch.cat(parts)[:num_rows]

    def merged_metrics(self, values: Mapping[str, float]) -> dict[str, float]:
        """Returns the metrics of all shares together: sums, extremes, pooled standard deviations, else means."""
        shares = self.each(dict(values))
        return {name: _merged(name, shares) for name in values} if self.count > 1 else dict(values)

    def wait(self) -> None:
        """Returns when every process is here."""
        if self.count > 1:
            dist.barrier()


def _merged(name: str, shares: Sequence[Mapping[str, float]]) -> float:
    values = [share[name] for share in shares]
    for ending, merge in _MERGED.items():
        if name.endswith(ending):
            return merge(values)
    of_mean = name.removesuffix("std") + "mean"
    if name.endswith("std") and of_mean in shares[0]:
        means = [share[of_mean] for share in shares]
        middle = sum(means) / len(means)
        squares = [std**2 + (mean - middle) ** 2 for std, mean in zip(values, means, strict=True)]
        return math.sqrt(sum(squares) / len(squares))
    return sum(values) / len(values)


class AgreedStop:
    """A stop that reaches one process and is obeyed by all at the same point.

    Alone, it is the check that it was given. With several processes it must be called equally often by all; each call
    costs an exchange of one number.
    """

    def __init__(self, check: Callable[[], None], processes: Processes) -> None:
        self._check, self._processes = check, processes
        self._is_agreed = processes.count > 1

    def __call__(self) -> None:
        """Raises `StopRequested` in every process when one was asked to stop."""
        if not self._is_agreed:
            self._check()
            return
        reason = None
        try:
            self._check()
        except StopRequested as stopped:
            reason = stopped
        if self._processes.add_numbers([reason is not None])[0]:
            raise reason or StopRequested("another process was asked to stop")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block this process decides for itself: the others are elsewhere."""
        self._is_agreed, before = False, self._is_agreed
        try:
            yield
        finally:
            self._is_agreed = before
