"""What follows the end of an attempt that did not succeed, by its reason: the service's retry policy as a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from jobs.states import StatusReason

MAX_ATTEMPTS_WITHOUT_PROGRESS = 3
# How long a job is kept from a worker that failed it, while there is another: that one may be busy for hours.
ELSEWHERE_FOR = timedelta(minutes=5)
_LONGEST_BACKOFF = timedelta(minutes=5)


class RetryClass(StrEnum):
    """How a job goes on."""

    NONE = "no retry"  # It fails: another attempt would end the same way.
    AT_ONCE = "at once"  # Nothing was wrong, so nothing is counted.
    BACK_OFF = "with back-off"
    ELSEWHERE = "elsewhere"  # With back-off, and on another worker where there is one: this one's machine is suspect.


RETRY_CLASSES: dict[str, RetryClass] = {
    "invalid_spec": RetryClass.NONE,
    "invalid_dataset": RetryClass.NONE,
    "model_gated": RetryClass.NONE,
    "model_unavailable": RetryClass.NONE,
    "non_finite_loss": RetryClass.NONE,
    "reward_collapse": RetryClass.NONE,
    "reward_failed": RetryClass.NONE,
    "secret_missing": RetryClass.NONE,
    "secret_unreadable": RetryClass.NONE,
    "preempted": RetryClass.AT_ONCE,
    "internal": RetryClass.BACK_OFF,
    "trainer_killed": RetryClass.BACK_OFF,
    "trainer_stopped": RetryClass.BACK_OFF,
    "worker_lost": RetryClass.BACK_OFF,
    "out_of_memory": RetryClass.ELSEWHERE,  # Of the machine. A GPU's is not retryable: it has the same on any worker.
    "stalled": RetryClass.ELSEWHERE,
    "trainer_crashed": RetryClass.ELSEWHERE,
    "worker_failed": RetryClass.ELSEWHERE,
}


def retry_class_of(reason: StatusReason) -> RetryClass:
    """Returns how a job goes on after an attempt that ended for this reason.

    `retryable` is the word of who saw the end, and it has the last one: without it there is no retry, and with it there
    is one, whatever the table says of most ends of this code. Codes of trainers to come are tried again with back-off.
    """
    if not reason["retryable"]:
        return RetryClass.NONE
    listed = RETRY_CLASSES.get(reason["code"], RetryClass.BACK_OFF)
    return RetryClass.BACK_OFF if listed is RetryClass.NONE else listed


@dataclass(frozen=True)
class Retry:
    """How soon a job is tried again: `first`, doubled for each attempt that committed no later checkpoint."""

    first: timedelta

    def after(self, attempts_without_progress: int) -> timedelta:
        """Returns the pause before the next attempt, at most five minutes."""
        doublings = min(max(attempts_without_progress - 1, 0), 16)
        return min(self.first * (1 << doublings), _LONGEST_BACKOFF)
