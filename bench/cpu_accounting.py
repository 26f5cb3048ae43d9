"""What the processes beside a trainer use: CPU seconds and wake-ups of each, read from the kernel's own counters.

Wall-clock comparisons need an idle machine and many rounds; the kernel's account of a process does not depend on who
else computes. A group is a process of the stack with all its descendants, threads included. Linux only (`/proc`).
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
TRAINER = "trainer"


@dataclasses.dataclass(frozen=True)
class Usage:
    """CPU seconds since the start, and context switches: voluntary ones are wake-ups, involuntary ones preemptions."""

    cpu_s: float = 0.0
    wakeups: int = 0
    preemptions: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu_s + other.cpu_s, self.wakeups + other.wakeups, self.preemptions + other.preemptions)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu_s - other.cpu_s, self.wakeups - other.wakeups, self.preemptions - other.preemptions)


@dataclasses.dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    is_trainer: bool
    usage: Usage


def snapshot(roots: Mapping[str, int]) -> dict[str, Usage]:
    """Returns the usage of each group so far; the worker's trainer, with its own descendants, is a group of its own.

    Args:
        roots: pid of each group's first process by the group's name. A process belongs to its nearest root.

    Returns:
        The usage by name. Descendants that have ended are in: their parent was charged when it reaped them (their
        context switches are lost, their CPU time is not).
    """
    processes = {process.pid: process for process in _processes()}
    names = {pid: name for name, pid in roots.items()}
    total = {name: Usage() for name in [*roots, TRAINER]}
    for process in processes.values():
        name = _group_of(process, processes, names)
        if name is not None:
            total[name] += process.usage
    return total


def _group_of(process: _Process, processes: Mapping[int, _Process], names: Mapping[int, str]) -> str | None:
    current: _Process | None = process
    is_trainers = False
    while current is not None:
        if current.pid in names:
            return TRAINER if is_trainers else names[current.pid]
        is_trainers |= current.is_trainer
        current = processes.get(current.parent)
    return None  # A stranger, other stacks' trainers among them.


def _processes() -> list[_Process]:
    found = (_process(path) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [process for process in found if process is not None]


def _process(path: Path) -> _Process | None:
    try:
        # The command's name is in brackets and may hold anything; after the last bracket the columns are fixed.
        columns = (path / "stat").read_text().rpartition(")")[2].split()
        command = (path / "cmdline").read_bytes().split(b"\0")
        switches = [_switches(task) for task in (path / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return None
    own_and_reaped = sum(int(ticks) for ticks in columns[11:15]) / TICKS_PER_SECOND
    usage = Usage(own_and_reaped, sum(s[0] for s in switches), sum(s[1] for s in switches))
    return _Process(int(path.name), int(columns[1]), b"--events-fd" in command, usage)


def _switches(task: Path) -> tuple[int, int]:
    lines = (line.partition(":") for line in (task / "status").read_text().splitlines())
    fields = {name: value for name, _, value in lines}
    return int(fields["voluntary_ctxt_switches"]), int(fields["nonvoluntary_ctxt_switches"])


def table(usage: Mapping[str, Usage], seconds: float) -> str:
    """Returns a Markdown table of rates, the largest first, with the sum of everything but the trainer."""
    others = {name: used for name, used in usage.items() if name != TRAINER}
    rows = sorted(others.items(), key=lambda item: item[1].cpu_s, reverse=True)
    lines = ["| process | CPU, % of one core | wake-ups/s | preemptions/s |", "|---|---:|---:|---:|"]
    lines += [_row(name, used, seconds) for name, used in rows]
    lines.append(_row("**sum beside the trainer**", sum(others.values(), Usage()), seconds))
    lines.append(_row("trainer", usage[TRAINER], seconds))
    return "\n".join(lines)


def _row(name: str, used: Usage, seconds: float) -> str:
    rates = (used.wakeups / seconds, used.preemptions / seconds)
    return f"| {name} | {100 * used.cpu_s / seconds:.2f} | {rates[0]:.1f} | {rates[1]:.1f} |"
