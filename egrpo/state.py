"""What a run knows besides its tensors: how far it is, its random draws, its prompt order and its evaluations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from egrpo.methods import MethodSpec
from egrpo.processes import Processes
from egrpo.schedule import GroupPlan, MergePlan

# Streams of one seed that must not repeat each other.
_DRAWS, _NOISE = 0, 1
_CUDA = "cuda."


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation in short; `rewards` holds the mean of every reward by its label."""

    step: int
    eval_reward: float
    strict_accuracy: float
    rewards: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedEvaluation:
    """The scores of an evaluation's images, [prompt][image]: `reward`, `passed`, and `reward/<label>` of every one."""

    step: int
    images: dict[str, list[list[float]]]


@dataclass
class History:
    """Evaluations so far: the curve, and per image the first and the latest scores and pass flags.

    `recent` are the latest evaluations, as many as `egrpo.hacking` looks at; `hacking` the stretches that it found.
    """

    curve: list[CurvePoint] = field(default_factory=list)
    before: dict[str, list[list[float]]] = field(default_factory=dict)
    latest: dict[str, list[list[float]]] = field(default_factory=dict)
    recent: list[RecordedEvaluation] = field(default_factory=list)
    hacking: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    training_seconds: float = 0.0

    def reward_at(self, step: int) -> float | None:
        """Returns the evaluation reward of a step, if it was evaluated."""
        return next((point.eval_reward for point in self.curve if point.step == step), None)


class Draws:
    """Every random draw of a run: prompts, initial seeds, what groups do, and the noise of their steps.

    It can be saved and restored. Prompts come in shuffled epochs; an update that needs more prompts than there are goes
    into the next epoch, where the same prompt gets another initial noise. Every process draws for all of them and takes
    its share, so the state is the same in all, and the draws do not depend on how many there are.
    """

    def __init__(self, seed: int, num_prompts: int, processes: Processes | None = None) -> None:
        self._rng = np.random.Generator(np.random.PCG64([seed, _DRAWS]))
        self._noise = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, _NOISE]).generate_state(1)[0]))
        self._num_prompts = num_prompts
        self._processes = processes or Processes()
        self._waiting: list[int] = []

    def prompts(self, count: int) -> list[int]:
        """Returns the indices of the next prompts, `count` over all processes."""
        while len(self._waiting) < count:
            self._waiting += self._rng.permutation(self._num_prompts).tolist()
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return list(self._processes.share(taken))

    def seeds(self, count: int) -> list[int]:
        """Returns seeds of `count` initial latents of this process."""
        drawn: list[int] = self._rng.integers(2**63 - 1, size=count * self._processes.count).tolist()
        return list(self._processes.share(drawn))

    def noise(self, shape: Sequence[int]) -> torch.Tensor:
        """Returns standard normal noise whose first axis is this process's prompts, float32 on the CPU."""
        everyone = (shape[0] * self._processes.count, *shape[1:])
        start = self._processes.index * shape[0]
        return torch.randn(everyone, generator=self._noise)[start : start + shape[0]]

    def groups(self, method: MethodSpec, plan: MergePlan, step: int) -> tuple[GroupPlan, ...]:
        """Returns what the groups of the update after `step` optimizer steps do."""
        return method.groups(plan, self._rng, step)

    def save(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Returns the JSON part and the tensor part of the state."""
        document = {"numpy": self._rng.bit_generator.state, "waiting": list(self._waiting), "global": _global_state()}
        return document, {"noise": self._noise.get_state(), "torch": torch.get_rng_state(), **_cuda_states()}

    def load(self, document: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Restores what `save` returned."""
        self._rng.bit_generator.state = document["numpy"]
        self._waiting = list(document["waiting"])
        self._noise.set_state(tensors["noise"])
        torch.set_rng_state(tensors["torch"])
        for name, state in tensors.items():
            # A device that this machine lacks has nothing to restore.
            if name.startswith(_CUDA) and int(name.removeprefix(_CUDA)) < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, int(name.removeprefix(_CUDA)))
        version, words, gauss = document["global"]["python"]
        random.setstate((version, tuple(words), gauss))
        kind, keys, *rest = document["global"]["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))


def _global_state() -> dict[str, Any]:
    """The generators that this code does not use, but a reward may."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]}


def _cuda_states() -> dict[str, torch.Tensor]:
    if not torch.cuda.is_available():
        return {}
    return {f"{_CUDA}{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}


def history_to_json(history: History) -> dict[str, Any]:
    """Returns the history as JSON types."""
    return asdict(history)


def history_from_json(document: dict[str, Any]) -> History:
    """Returns the history that `history_to_json` wrote."""
    curve = [CurvePoint(**point) for point in document["curve"]]
    recent = [RecordedEvaluation(**evaluation) for evaluation in document.get("recent", [])]
    return History(**{**document, "curve": curve, "recent": recent})
