"""What the two clients do differently: they sleep, and they work on files."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

sleep = asyncio.sleep


async def on_disk(work: Callable[[], R]) -> R:
    """Returns what the work returns; the event loop goes on meanwhile."""
    return await asyncio.to_thread(work)
