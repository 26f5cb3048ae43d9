"""Reward hacking: the trained reward rises while a held-out reward falls. Pure functions of recorded evaluations.

Every evaluation draws the same prompts from the same noise, so two of them are compared image by image. The newest is
compared with the one `WINDOW` evaluations earlier (or with the first, when there are fewer). A reward has risen, or
fallen, when

    the 99 % interval of the mean paired difference, prompts resampled, lies above, or below, zero, and
    the mean difference is at least a tenth of the std of the scores of the earlier evaluation.

The first says that the change is no accident of the prompts, the second that it is worth a word: without noise in the
drawing, the smallest change of all images in one direction would be significant. With fewer than `MIN_UNITS` prompts
(or images, of a single prompt) the interval says nothing and neither do we.

A stretch is a run of evaluations at which this holds for one held-out reward; it is told once, when it begins.
Axis letters: P prompt, M image of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from egrpo.evaluate import paired_interval
from egrpo.rewards import FloatArray
from egrpo.state import RecordedEvaluation

WINDOW = 3
MIN_UNITS = 8
_TAIL, _MIN_EFFECT = 0.005, 0.1
_TRAINED, _HELD_OUT = "reward", "reward/held_out_"


@dataclass(frozen=True)
class Change:
    """What happened to a reward between two evaluations: mean paired difference, and its 99 % interval."""

    delta: float
    low: float
    high: float
    std: float

    @classmethod
    def between(cls, earlier_PM: FloatArray, later_PM: FloatArray) -> Change:
        """Returns the change of the same images' scores."""
        low, high = paired_interval(earlier_PM, later_PM, tail=_TAIL)
        return cls(float((later_PM - earlier_PM).mean()), low, high, float(earlier_PM.std()))

    @property
    def is_large(self) -> bool:
        """Whether the difference is worth a word."""
        return abs(self.delta) >= _MIN_EFFECT * self.std

    @property
    def is_rise(self) -> bool:
        """Whether the reward has risen."""
        return self.low > 0 and self.is_large

    @property
    def is_fall(self) -> bool:
        """Whether the reward has fallen."""
        return self.high < 0 and self.is_large


def has_enough_units(num_prompts: int, images_per_prompt: int) -> bool:
    """Returns whether an evaluation has enough independent pieces of evidence: prompts, or images of a single one."""
    return (num_prompts if num_prompts > 1 else images_per_prompt) >= MIN_UNITS


def diverging(recent: Sequence[RecordedEvaluation]) -> dict[str, tuple[int, Change, Change]]:
    """Returns the held-out rewards that have fallen while the trained one has risen, by label.

    Each with the step that is compared with, the change of the trained reward and that of the held-out one.
    """
    if len(recent) < 2 or not has_enough_units(*np.shape(recent[-1].images[_TRAINED])):
        return {}
    earlier, later = recent[max(0, len(recent) - 1 - WINDOW)], recent[-1]
    trained = _change(earlier, later, _TRAINED)
    if not trained.is_rise:
        return {}
    names = [name for name in later.images if name.startswith(_HELD_OUT) and name in earlier.images]
    changes = {name.removeprefix("reward/"): _change(earlier, later, name) for name in names}
    return {name: (earlier.step, trained, change) for name, change in changes.items() if change.is_fall}


def extended(
    stretches: Sequence[Mapping[str, Any]], recent: Sequence[RecordedEvaluation]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the stretches after the newest evaluation, and what to say of those that begin with it."""
    known, told = [dict(stretch) for stretch in stretches], []
    for name, (since, trained, held_out) in diverging(recent).items():
        evidence = {"compared_with_step": since, "last_step": recent[-1].step} | _told(trained, held_out)
        before = recent[-2].step
        going_on = next((s for s in known if s["held_out"] == name and s["last_step"] == before), None)
        if going_on is not None:
            going_on |= evidence
            continue
        known.append({"held_out": name, "first_step": recent[-1].step, **evidence})
        told.append(
            f"reward hacking: from step {since} to {recent[-1].step} the trained reward rose by {trained.delta:+.4f} "
            f"(99% interval {trained.low:+.4f} to {trained.high:+.4f}) while {name} fell by {held_out.delta:+.4f} "
            f"({held_out.low:+.4f} to {held_out.high:+.4f})"
        )
    return known, told


def _change(earlier: RecordedEvaluation, later: RecordedEvaluation, name: str) -> Change:
    return Change.between(np.array(earlier.images[name]), np.array(later.images[name]))


def _told(trained: Change, held_out: Change) -> dict[str, Any]:
    return {
        "reward_delta": trained.delta,
        "reward_ci99": [trained.low, trained.high],
        "held_out_delta": held_out.delta,
        "held_out_ci99": [held_out.low, held_out.high],
    }
