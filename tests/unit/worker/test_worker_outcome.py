"""What each way to die means."""

import signal

import pytest

from worker.outcome import reason_for
from worker.protocol import ErrorEvent
from worker.trainer import TrainerExit

BAR = "0%|  | 0/9\r11%|# | 1/9\r22%|## | 2/9"


def exited(code: int, stderr: str = "") -> TrainerExit:
    return TrainerExit(code=code, signal=None, stderr_tail=stderr)


def killed(number: int, stderr: str = "") -> TrainerExit:
    return TrainerExit(code=None, signal=number, stderr_tail=stderr)


def said(code: str, message: str = "why", retryable: bool = False) -> ErrorEvent:
    return ErrorEvent(type="error", code=code, message=message, retryable=retryable)


@pytest.mark.parametrize(
    ("exit_", "error", "oom_kills", "code", "retryable", "actor"),
    [
        (exited(2), said("invalid_spec"), 0, "invalid_spec", False, "user"),
        (exited(65), said("non_finite_loss"), 0, "non_finite_loss", False, "user"),
        (exited(65), None, 0, "non_finite_loss", False, "user"),
        (exited(66), said("model_unavailable"), 0, "model_unavailable", False, "system"),
        (exited(77), said("model_gated"), 0, "model_gated", False, "user"),
        (exited(69), said("reward_failed"), 0, "reward_failed", False, "user"),
        (exited(69), said("reward_failed", retryable=True), 0, "reward_failed", True, "user"),
        (exited(70), said("internal"), 0, "internal", False, "system"),
        (exited(70), said("internal", "CUDA out of memory. Tried to allocate"), 0, "out_of_memory", False, "system"),
        (exited(1, "torch.OutOfMemoryError: CUDA out of memory."), None, 0, "out_of_memory", False, "system"),
        (exited(1, "Traceback"), None, 0, "internal", True, "system"),
        (exited(75), None, 0, "trainer_stopped", True, "system"),
        (exited(0), None, 0, "internal", True, "system"),
        (killed(signal.SIGKILL), None, 1, "out_of_memory", True, "system"),
        (killed(signal.SIGKILL), None, 0, "trainer_killed", True, "system"),
        (killed(signal.SIGSEGV), None, 0, "trainer_crashed", True, "system"),
        (killed(signal.SIGABRT), None, 0, "trainer_crashed", True, "system"),
        (killed(signal.SIGHUP), None, 0, "trainer_killed", True, "system"),
    ],
)
def test_each_end_has_a_reason(
    exit_: TrainerExit, error: ErrorEvent | None, oom_kills: int, code: str, retryable: bool, actor: str
) -> None:
    reason = reason_for(exit_, error, oom_kills)
    assert (reason.code, reason.retryable, reason.actor) == (code, retryable, actor)


def test_the_message_names_the_error_and_ends_with_the_last_lines_of_stderr() -> None:
    stderr = "\n".join([f"line {n}" for n in range(20)] + [BAR])
    reason = reason_for(exited(70, stderr), said("internal", "boom"), 0)
    assert "boom" in reason.message
    assert reason.message.endswith("line 17\nline 18\nline 19\n22%|## | 2/9")
    assert "line 14" not in reason.message


def test_a_huge_message_is_cut() -> None:
    assert len(reason_for(exited(70, "x" * 100_000), None, 0).message) <= 2000
