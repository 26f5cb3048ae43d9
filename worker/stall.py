"""Tells a trainer that is stuck from one that is slow."""

import statistics
import time
from collections import deque
from collections.abc import Callable

_MEDIAN_FACTOR = 10.0
_WINDOW_STEPS = 64  # Enough for a steady median; old steps of a run that sped up stop mattering.


class StallDetector:
    """Notes every sign of life and says when the trainer has been silent for too long.

    Too long is max(`floor_s`, 10 × the median time between steps). Phases, metrics, samples and checkpoints are signs
    of life as well as steps, or a long evaluation would count as a stall; log lines are not, since a stuck loop may
    still print. One thread notes and another asks.
    """

    def __init__(self, floor_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts counting now.

        Args:
            floor_s: Silence in seconds that is never a stall.
            clock: Seconds on a clock that never goes back.
        """
        self._floor_s = floor_s
        self._clock = clock
        self._last_sign = clock()
        self._last_step: float | None = None
        self.limit_s = floor_s
        self._step_seconds: deque[float] = deque(maxlen=_WINDOW_STEPS)

    def sign_of_life(self) -> None:
        """Notes that the trainer did something."""
        self._last_sign = self._clock()

    def step(self) -> None:
        """Notes the end of an optimizer step."""
        now = self._clock()
        if self._last_step is not None:
            self._step_seconds.append(now - self._last_step)
            self.limit_s = max(self._floor_s, _MEDIAN_FACTOR * statistics.median(self._step_seconds))
        self._last_step = self._last_sign = now

    @property
    def stalled(self) -> bool:
        """Whether the silence has exceeded the limit."""
        return self._clock() - self._last_sign > self.limit_s
