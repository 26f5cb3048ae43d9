"""What the two clients do differently: they sleep, and they work on files."""

import time
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

sleep = time.sleep


def on_disk(work: Callable[[], R]) -> R:
    """Returns what the work returns."""
    return work()
