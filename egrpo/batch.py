"""A rollout on its way through one or more optimizer steps, and how a checkpoint keeps it between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from egrpo.advantage import Advantages
from egrpo.loss import OldPolicy
from egrpo.rollout import Rollout, Transition
from egrpo.schedule import MergedStep, MergePlan

# Packed tensors whose second axis is the prompt; of the others it is the first.
_PROMPT_SECOND = ("advantages", "is_flat")
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
    """A rollout, its advantages, what the policy that drew it said, and how many optimizer steps were made on it."""

    prompt_P: list[int]
    rollout: Rollout
    advantages: Advantages
    old: OldPolicy
    updates: int = 0

    def minibatch(self, count: int) -> tuple[list[int], list[int]]:
        """Returns the rows of the prompts whose turn it is when passes take `count` steps, and those of the others.

        Neighbours go to different minibatches; the order of prompts is random already.
        """
        turn, rows = self.updates % count, range(len(self.prompt_P))
        return [p for p in rows if p % count == turn], [p for p in rows if p % count != turn]

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns, as JSON and tensors, what further optimizer steps need; final latents are not among it."""
        tensors = {
            "advantages": torch.from_numpy(self.advantages.values_APG),
            "is_flat": torch.from_numpy(self.advantages.is_flat_AP),
        }
        for number, transition in enumerate(self.rollout.transitions):
            tensors[f"x.{number}"] = transition.x_PXNC.cpu()
            tensors[f"x_next.{number}"] = transition.x_next_PGNC.cpu()
            tensors[f"old_log_prob.{number}"] = self.old.log_probs_PG[number]
            if self.old.means_PXNC:
                tensors[f"old_mean.{number}"] = self.old.means_PXNC[number].cpu()
        steps = [{"group": transition.group, **asdict(transition.step)} for transition in self.rollout.transitions]
        return {"prompts": self.prompt_P, "updates": self.updates, "transitions": steps}, tensors

    @classmethod
    def unpack(
        cls, document: dict[str, Any], tensors: dict[str, Tensor], plan: MergePlan, device: torch.device
    ) -> Self:
        """Returns what `pack` was given."""
        transitions, means = [], []
        for number, entry in enumerate(document["transitions"]):
            step = MergedStep(**{name: value for name, value in entry.items() if name != "group"})
            x, x_next = tensors[f"x.{number}"].to(device), tensors[f"x_next.{number}"].to(device)
            transitions.append(Transition(entry["group"], step, x, x_next))
            if f"old_mean.{number}" in tensors:
                means.append(tensors[f"old_mean.{number}"].to(device))
        old = OldPolicy([tensors[f"old_log_prob.{number}"] for number in range(len(transitions))], means)
        nothing = torch.empty(0)
        rollout = Rollout(plan, tuple(transitions), nothing, nothing, 0)
        advantages = Advantages(tensors["advantages"].numpy(), tensors["is_flat"].numpy())
        return cls(document["prompts"], rollout, advantages, old, document["updates"])
