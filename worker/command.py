"""The trainer's command line: by itself, or on several GPUs by `accelerate launch`, one process for each.

The launcher starts every rank in a session of its own and passes on its environment and standard streams, no other
descriptor. So the events' pipe is the standard input of all of them, and `launch.py` stands before each rank, too: it
dies with its launcher, as the launcher does with the worker.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from worker.trainer import TrainerExit

_LAUNCH = Path(__file__).with_name("launch.py")
_ROOT_CAUSE = re.compile(r"Root Cause.*?exitcode\s*:\s*(-?\d+)", re.DOTALL)
_LAUNCHER_FAILED = 1


def command_for(trainer_command: Sequence[str], num_gpus: int) -> list[str]:
    """Returns the command that starts the trainer on that many GPUs; its arguments are to be appended."""
    if num_gpus <= 1:
        return list(trainer_command)
    # All that the launcher would otherwise take from a file in the home folder, or guess; port 0 is any free one.
    options = {
        "num_processes": num_gpus,
        "num_machines": 1,
        "machine_rank": 0,
        "mixed_precision": "no",  # The trainer's own business.
        "dynamo_backend": "no",
        "main_process_port": 0,
    }
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    rank = [sys.executable, "-I", "-S", str(_LAUNCH), "leader"]
    return [*launcher, *given, "--no_python", *rank, *trainer_command]


def environment_for(num_gpus: int, stop_grace_s: float) -> dict[str, str]:
    """Returns what the trainer's environment has besides, on that many GPUs."""
    if num_gpus == 0:
        return {"CUDA_VISIBLE_DEVICES": ""}
    # How long the launcher waits for its ranks to commit a checkpoint when it is told to stop; it is 30 s otherwise.
    return {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, int(stop_grace_s)))} if num_gpus > 1 else {}


def of_first_rank(exit_: TrainerExit) -> TrainerExit:
    """Returns how the rank ended that was the first to fail: the launcher itself ends with 1 whatever it was."""
    found = _ROOT_CAUSE.search(exit_.stderr_tail) if exit_.code == _LAUNCHER_FAILED else None
    if found is None:
        return exit_
    code = int(found[1])
    return replace(exit_, code=None, signal=-code) if code < 0 else replace(exit_, code=code)
