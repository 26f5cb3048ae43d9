"""What a trainer's end means: exit codes, signals and its last words, mapped to a reason.

A reason says whose fault it was and whether another attempt helps; what happens to the job is decided from it by the
table in `jobs.retries`. The exit codes are those of `python -m egrpo`.
"""

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker.protocol import ErrorEvent
from worker.trainer import TrainerExit

Actor = Literal["user", "system", "quota"]

EXIT_DONE = 0
EXIT_BAD_SPEC = 2
EXIT_NON_FINITE = 65
EXIT_MODEL_UNAVAILABLE = 66
EXIT_REWARD_FAILED = 69
EXIT_STOPPED = 75
EXIT_MODEL_GATED = 77

_STDERR_LINES = 5
_MESSAGE_CHARS = 2_000
_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate memory|MemoryError|std::bad_alloc"
)


@dataclass(frozen=True)
class Reason:
    """Why an attempt ended, in the words of the API's `status_reason`."""

    code: str
    message: str
    retryable: bool
    actor: Actor = "system"


# Which codes are the user's to mend, and which a second attempt may mend by itself.
_BY_EXIT_CODE: dict[int, tuple[str, bool, Actor]] = {
    EXIT_BAD_SPEC: ("invalid_spec", False, "user"),
    EXIT_NON_FINITE: ("non_finite_loss", False, "user"),
    EXIT_MODEL_UNAVAILABLE: ("model_unavailable", False, "system"),
    EXIT_MODEL_GATED: ("model_gated", False, "user"),
    EXIT_REWARD_FAILED: ("reward_failed", False, "user"),
}
_CRASH_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
)


def reason_for(exit_: TrainerExit, error: ErrorEvent | None, oom_kills: int) -> Reason:
    """Returns why a trainer that was not asked to stop has ended.

    Args:
        exit_: How the process ended.
        error: The trainer's own last `error` event, if it could still write one.
        oom_kills: How many processes the kernel killed for memory during the run.

    Returns:
        The reason, its message ending with the last lines of stderr.
    """
    if exit_.signal is not None:
        return _reason_for_signal(exit_, oom_kills)
    assert exit_.code is not None
    if _ran_out_of_memory(exit_, error):
        return Reason("out_of_memory", _message("the trainer ran out of memory", exit_, error), retryable=False)
    if exit_.code == EXIT_STOPPED:
        return Reason("trainer_stopped", "the trainer was stopped from outside", retryable=True)
    if exit_.code == EXIT_DONE:
        return Reason(
            "internal", _message("the trainer ended without exporting an adapter", exit_, error), retryable=True
        )
    code, retryable, actor = _BY_EXIT_CODE.get(exit_.code, ("internal", True, "system"))
    if error is not None:
        retryable = error.retryable
        code = code if exit_.code in _BY_EXIT_CODE else error.code
    return Reason(code, _message(f"the trainer {exit_}", exit_, error), retryable, actor)


def _reason_for_signal(exit_: TrainerExit, oom_kills: int) -> Reason:
    assert exit_.signal is not None
    if exit_.signal == signal.SIGKILL and oom_kills > 0:
        return Reason(
            "out_of_memory", "the kernel killed the trainer because the machine ran out of memory", retryable=True
        )
    if exit_.signal in _CRASH_SIGNALS:
        return Reason("trainer_crashed", _message(f"the trainer {exit_}", exit_, None), retryable=True)
    return Reason("trainer_killed", _message(f"the trainer {exit_}, from outside", exit_, None), retryable=True)


def _ran_out_of_memory(exit_: TrainerExit, error: ErrorEvent | None) -> bool:
    if exit_.code in (EXIT_DONE, EXIT_STOPPED, EXIT_BAD_SPEC):
        return False
    said = error.message if error is not None else _last_lines(exit_.stderr_tail)
    return _OUT_OF_MEMORY.search(said) is not None


def _message(what: str, exit_: TrainerExit, error: ErrorEvent | None) -> str:
    parts = [what if error is None else f"{what}: {error.message}"]
    if lines := _last_lines(exit_.stderr_tail):
        parts.append(f"last lines of its log:\n{lines}")
    return "\n".join(parts)[:_MESSAGE_CHARS]


def _last_lines(stderr_tail: str) -> str:
    # A progress bar redraws its line with carriage returns; only what it showed last matters.
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in stderr_tail.split("\n")]
    return "\n".join([line for line in lines if line][-_STDERR_LINES:])


def count_oom_kills() -> int:
    """Returns how many processes the kernel has killed for memory so far, in this cgroup or else on this machine.

    The difference of two readings tells an out-of-memory kill from any other SIGKILL. 0 where the kernel does not say.
    """
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        try:
            text = path.read_text()
        except OSError:
            continue
        if match := re.search(r"^oom_kill (\d+)$", text, re.MULTILINE):
            return int(match[1])
    return 0
