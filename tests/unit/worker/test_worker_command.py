"""The trainer's command line on no, one and several GPUs, and what the end of its launcher says."""

import sys

import pytest

from worker.command import command_for, environment_for, of_first_rank
from worker.trainer import TrainerExit

TRAINER = ["python", "-m", "egrpo", "train"]
# The last lines of `accelerate launch` of torch 2.13, shortened.
FAILED = """
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 11)
Root Cause (first observed failure):
[0]:
  time      : 2026-11-25_14:00:00
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 12)
  error_file: <N/A>
"""


def test_one_process_needs_no_launcher() -> None:
    assert command_for(TRAINER, 0) == command_for(TRAINER, 1) == TRAINER
    assert (environment_for(0, 60), environment_for(1, 60)) == ({"CUDA_VISIBLE_DEVICES": ""}, {})


def test_several_are_started_by_accelerate_which_waits_as_long_as_the_worker_does() -> None:
    command = command_for(TRAINER, 4)
    assert command[:4] == [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    assert command[command.index("--num_processes") + 1] == "4"
    assert command[-5:] == ["leader", *TRAINER]
    assert environment_for(4, 61.5) == {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "61"}


@pytest.mark.parametrize(
    ("launcher", "code", "signal"),
    [
        (TrainerExit(1, None, FAILED.format(code=65)), 65, None),
        (TrainerExit(1, None, FAILED.format(code=-9)), None, 9),
        (TrainerExit(1, None, "Traceback of the launcher itself"), 1, None),
        (TrainerExit(0, None, ""), 0, None),
        (TrainerExit(None, 9, FAILED.format(code=65)), None, 9),
    ],
)
def test_the_end_is_that_of_the_rank_that_failed_first(
    launcher: TrainerExit, code: int | None, signal: int | None
) -> None:
    exit_ = of_first_rank(launcher)
    assert (exit_.code, exit_.signal, exit_.stderr_tail) == (code, signal, launcher.stderr_tail)
