"""What happens to which process, and when: a pure function of the seed, so that a failure can be played again."""

from __future__ import annotations

import random
from dataclasses import dataclass

# `kill` is SIGKILL, after which the process is started again with its data and its port; `stop` is SIGSTOP, after which
# it goes on as if nothing had been. A stopped worker sleeps until its lease is over and another may have taken its job.
_PROCESSES = ("trainer", "worker", "api", "broker", "postgres", "store")
KINDS = (
    *(f"{action} {process}" for process in _PROCESSES for action in ("kill", "stop")),
    "kill maintenance",
    "flush broker",
    "cut network",  # between one worker and the database, as `hang`, which outlasts the lease
    "hang network",
    "fail store",
    "slow store",
    "truncate store",
    "fill disk",
)
# Longer than a checkpoint takes, shorter than a job: most jobs meet several faults and still get on in between.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 0.7
_SHORTEST_FAULT_S, _LONGEST_FAULT_S = 0.3, 1.0


@dataclass(frozen=True)
class Fault:
    """One fault, `pause_s` after the one before it began; `target` counts what it may strike."""

    pause_s: float
    kind: str
    target: int
    lasts_s: float

    @property
    def action(self) -> str:
        return self.kind.split()[0]

    @property
    def what(self) -> str:
        return self.kind.split()[1]


def schedule(seed: int, num_faults: int) -> list[Fault]:
    """Returns the faults of a seed: every kind comes once before any comes twice."""
    draw = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < num_faults:
        kinds += draw.sample(KINDS, len(KINDS))
    return [
        Fault(
            draw.uniform(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S),
            kind,
            draw.randrange(1000),
            draw.uniform(_SHORTEST_FAULT_S, _LONGEST_FAULT_S),
        )
        for kind in kinds[:num_faults]
    ]
