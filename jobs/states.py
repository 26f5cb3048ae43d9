"""The life of a job as pure rules: the closed set of statuses, which may follow which, what a user may do when.

queued ──► running ──► succeeded | failed
  ▲  │        │ ▲
  │  │        │ └──────────────┐            a lost or preempted worker: running ──► queued
  │  ▼        ▼                │
  │ cancelled ◄── cancelling   │
  │                            │
  └── paused ◄── pausing ◄─────┘

A success is final. What failed or was cancelled stays so unless its owner has it tried again: ──► queued.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypedDict

from jobs.errors import InvalidState


class Status(StrEnum):
    """The closed set of job statuses."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """What a user may ask of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


class Desired(StrEnum):
    """What the heartbeat brings to the worker."""

    RUN = "run"
    CANCEL = "cancel"
    PAUSE = "pause"


Actor = Literal["user", "system", "quota"]


class StatusReason(TypedDict):
    """Why the status is what it is, whose fault that is, and whether another try may help."""

    code: str
    message: str
    retryable: bool
    actor: Actor


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
# A worker holds the job's lease in these.
HELD = frozenset({Status.RUNNING, Status.PAUSING, Status.CANCELLING})

# A trainer may finish or fail while a wish to pause or cancel is still on its way: what happened is what counts.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED, Status.PAUSED, Status.FAILED}),
    Status.RUNNING: frozenset(
        {Status.QUEUED, Status.PAUSING, Status.PAUSED, Status.CANCELLING, Status.SUCCEEDED, Status.FAILED}
    ),
    Status.PAUSING: frozenset({Status.PAUSED, Status.QUEUED, Status.CANCELLING, Status.SUCCEEDED, Status.FAILED}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.CANCELLING: frozenset({Status.CANCELLED, Status.SUCCEEDED, Status.FAILED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.CANCELLED: frozenset({Status.QUEUED}),
}

_ACTIONS: dict[Action, frozenset[Status]] = {
    Action.CANCEL: frozenset({Status.QUEUED, Status.RUNNING, Status.PAUSING, Status.PAUSED}),
    Action.PAUSE: frozenset({Status.QUEUED, Status.RUNNING}),
    Action.RESUME: frozenset({Status.PAUSED}),
    Action.RETRY: frozenset({Status.FAILED, Status.CANCELLED}),
}


def allowed_actions(status: str) -> list[str]:
    """Returns what a user may ask of a job in that status."""
    return [action.value for action, statuses in _ACTIONS.items() if status in statuses]


def check_action(status: str, action: Action) -> None:
    """Passes if the status allows the action.

    Raises:
        InvalidState: with the current status and what is allowed.
    """
    if status not in _ACTIONS[action]:
        raise _refused(f"a {status} job does not allow {action.value!r}", status)


def check_transition(old: str, new: str) -> None:
    """Passes if a job may go from one status to the other.

    Raises:
        InvalidState: it may not.
    """
    if Status(new) not in TRANSITIONS[Status(old)]:
        raise _refused(f"a {old} job cannot become {new}", old)


def _refused(detail: str, status: str) -> InvalidState:
    return InvalidState(detail, status=status, allowed_actions=allowed_actions(status))
