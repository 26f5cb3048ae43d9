"""A rollout on its way through one or more optimizer steps, and how a checkpoint keeps it between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from egrpo.advantage import Advantages
from egrpo.errors import CheckpointError
from egrpo.rollout import Branch, Rollout
from egrpo.schedule import MergePlan

# Packed tensors whose second axis is the prompt; of the others it is the first.
_PROMPT_SECOND = ("advantages", "is_flat", "old_log_probs")
Packed = tuple[dict[str, Any], dict[str, Tensor]]


def joined(shares: Sequence[Packed]) -> Packed:
    """Returns the pack of the whole batch from those of equal shares of its prompts."""
    document, tensors = shares[0]
    return {**document, "prompts": [p for share, _ in shares for p in share["prompts"]]}, {
        name: torch.cat([share[name] for _, share in shares], _prompt_axis(name)) for name in tensors
    }


def share_of(document: dict[str, Any], tensors: dict[str, Tensor], index: int, count: int) -> Packed:
    """Returns one of `count` equal shares of a pack."""
    size = len(document["prompts"]) // count
    prompts = document["prompts"][index * size : (index + 1) * size]
    own = {name: tensor.narrow(_prompt_axis(name), index * size, size).clone() for name, tensor in tensors.items()}
    return {**document, "prompts": prompts}, own


def _prompt_axis(name: str) -> int:
    return int(name in _PROMPT_SECOND)


@dataclass
class Batch:
    """A rollout with its advantages, and how many optimizer steps were made on it."""

    prompt_P: list[int]
    rollout: Rollout
    advantages: Advantages
    old_log_probs_APG: Tensor | None = None
    updates: int = 0

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns, as JSON and tensors, what further optimizer steps need; final latents are not among it."""
        assert self.old_log_probs_APG is not None
        tensors = {
            "advantages": torch.from_numpy(self.advantages.values_APG),
            "is_flat": torch.from_numpy(self.advantages.is_flat_AP),
            "old_log_probs": self.old_log_probs_APG,
        }
        for branch in self.rollout.branches:
            tensors[f"x.{branch.step.start}"] = branch.x_PNC.cpu()
            tensors[f"x_next.{branch.step.start}"] = branch.x_next_PGNC.cpu()
        return {"prompts": self.prompt_P, "updates": self.updates}, tensors

    @classmethod
    def unpack(
        cls, document: dict[str, Any], tensors: dict[str, Tensor], plan: MergePlan, device: torch.device
    ) -> Self:
        """Returns what `pack` was given.

        Raises:
            CheckpointError: its active steps are not those of the plan.
        """
        starts = {int(name.split(".")[1]) for name in tensors if name.startswith("x.")}
        branches = tuple(
            Branch(step, tensors[f"x.{step.start}"].to(device), tensors[f"x_next.{step.start}"].to(device))
            for step in plan.steps
            if step.start in starts
        )
        if len(branches) != len(starts):
            raise CheckpointError("the checkpoint's rollout is of another merge plan")
        nothing = torch.empty(0)
        rollout = Rollout(plan, branches, nothing, nothing, 0)
        advantages = Advantages(tensors["advantages"].numpy(), tensors["is_flat"].numpy())
        return cls(document["prompts"], rollout, advantages, tensors["old_log_probs"], document["updates"])
