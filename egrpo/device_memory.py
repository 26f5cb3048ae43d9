"""What memory the device has, what this process takes of it, and whether a run fits.

A run is checked once the model is loaded and before anything else is made: what the process holds by then is known
exactly, also what rewards took, and only the growth is an estimate.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egrpo.errors import MemoryLimitError
from egrpo.memory import CPU_HEAP, MemoryEstimate

if TYPE_CHECKING:
    import torch

_CGROUP = Path("/sys/fs/cgroup")
_REMEDIES = {
    "encoding": "training.precision 'bfloat16', or shorter prompts",
    "rollout": "a smaller training.micro_batch_size, or fewer training.prompts_per_update or method.group_size",
    "decoding": "a smaller height and width",
    "update": "a smaller training.micro_batch_size, training.gradient_checkpointing, training.precision 'bfloat16', "
    "a lower training.lora.rank, or a smaller height and width",
}


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes that this process holds on a device, and bytes that are still free there; None where nothing says so."""

    held_bytes: int
    free_bytes: int | None


def check_memory(expected: MemoryEstimate, device: torch.device) -> str:
    """Returns one line that says what the run will need of what there is.

    Raises:
        MemoryLimitError: it will need more; the message says which phase decides and what to change.
    """
    now = device_memory(device)
    growth = expected.growth_bytes * (CPU_HEAP if device.type == "cpu" else 1)
    peak = now.held_bytes + int(growth)
    held = f"{_gib(now.held_bytes)} held"
    line = f"memory: about {_gib(peak)} at the peak ({held}), in the phase {expected.largest_phase}"
    if now.free_bytes is None:
        return line
    total = now.held_bytes + now.free_bytes
    line = f"{line}, of {_gib(total)} on {device.type}"
    if peak > total:
        raise MemoryLimitError(
            f"{line}; training.startup_checks 'warn' goes on anyway. Try {_REMEDIES[expected.largest_phase]}"
        )
    return line


def device_memory(device: torch.device) -> DeviceMemory:
    """Returns what this process holds on a device and what is free there."""
    if device.type == "cuda":
        import torch

        # What the allocator caches is free for this process.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return DeviceMemory(torch.cuda.memory_allocated(device), torch.cuda.mem_get_info(device)[0] + cached)
    if device.type == "cpu" and sys.platform == "linux":
        return DeviceMemory(_status_bytes("VmRSS"), min(_available_bytes(), cgroup_free_bytes()))
    return DeviceMemory(0, None)


def peak_bytes(device: torch.device) -> int:
    """Returns the most memory that this process ever held: allocated on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "linux":
        # Not getrusage: after an exec it still knows the peak of the program before.
        return _status_bytes("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status_bytes(field: str) -> int:
    return _kilobytes(Path("/proc/self/status"), field) * 1024


def _available_bytes() -> int:
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024


def _kilobytes(path: Path, field: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])


def cgroup_free_bytes(root: Path = _CGROUP) -> int:
    """What a container may still take, or more than any machine has where there is no limit.

    Page cache counts as taken by the kernel, and is given back under pressure.
    """
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return sys.maxsize
        used = int((root / "memory.current").read_text())
        rows = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return int(limit) - used + int(rows.get("inactive_file", 0)) + int(rows.get("active_file", 0))
    except OSError:
        return sys.maxsize


def _gib(count: int) -> str:
    return f"{count / 2**30:.3f} GiB"
