"""Which number format the network computes in, and why.

Whatever it is: latents, the SDE kernel, log-probabilities, losses, the trained parameters and their optimizer are
float32. With an adapter the frozen base is held in the format itself; a full fine-tune holds the transformer in float32
and casts in each forward, because an update of 2e-6 is lost when it is added to a bfloat16 weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from egrpo.errors import NonFiniteError


@dataclass(frozen=True)
class Precision:
    """A number format and the reason for it, a clause for the log."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """The format in the spec's words."""
        return str(self.dtype).removeprefix("torch.")


def choose_precision(setting: str, device: torch.device) -> Precision:
    """Returns the format that the spec names or, for `auto`, bfloat16 where the GPU computes in it, else float32."""
    if setting != "auto":
        return Precision(getattr(torch, setting), "the spec names it")
    if device.type != "cuda":
        return Precision(torch.float32, f"on {device.type} nothing else is faster")
    name = torch.cuda.get_device_name(device)
    # Emulated bfloat16 is slower than float32.
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision(torch.bfloat16, f"{name} computes in it, and its range is that of float32")
    return Precision(torch.float32, f"{name} has no bfloat16; float16 needs loss scaling, so only the spec turns it on")


def autocast_forward(module: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Makes a module with float32 weights compute in `dtype`; nothing outside its forward is touched.

    No cast of a weight is kept for a second use: there is none, and all of them would be a second model in memory.
    """
    module.forward = torch.autocast(device.type, dtype, cache_enabled=False)(module.forward)


class LossScale:
    """Loss scaling for float16, whose smallest number is 6e-8: gradients are multiplied before and divided after.

    Source: Micikevicius et al., arXiv 1710.03740, section 3.2, with torch's growth and backoff. A step whose gradients
    overflow is skipped and the scale halved; for the other formats the scale is 1 and no step is ever skipped.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision.dtype == torch.float16)

    @property
    def is_enabled(self) -> bool:
        """Whether a gradient that is not finite is an overflow to be skipped, and not the end of the run."""
        return bool(self._scaler.is_enabled())

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """Returns the loss to run backward from."""
        scaled: torch.Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradients again."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Makes the optimizer step unless gradients overflowed; returns whether it was made.

        Raises:
            NonFiniteError: gradients overflow with a scale below 1: the gradient itself is not finite.
        """
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        after = self._scaler.get_scale()
        if after < 1:
            raise NonFiniteError("gradients overflow float16 at a loss scale below 1; use bfloat16 or float32")
        return bool(after >= before)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the state; empty where there is none."""
        state = self._scaler.state_dict()
        return {key: torch.tensor(state[key]) for key in ("scale", "_growth_tracker") if key in state}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restores what `tensors` returned."""
        if tensors:
            state = {key: value.item() for key, value in tensors.items()}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **state})
