"""The rules of a job's life."""

from __future__ import annotations

import pytest

from jobs.errors import InvalidState
from jobs.states import HELD, TERMINAL, TRANSITIONS, Action, Status, allowed_actions, check_action, check_transition


def test_every_status_has_its_rules_and_the_set_is_closed() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert {str(status) for status in Status} == {
        "queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled",
    }  # fmt: skip


def test_a_success_is_final_what_else_has_ended_can_be_tried_again_and_everything_can_end() -> None:
    assert (TRANSITIONS[Status.SUCCEEDED], allowed_actions("succeeded")) == (frozenset(), [])
    for status in TERMINAL - {Status.SUCCEEDED}:
        assert TRANSITIONS[status] == {Status.QUEUED}
        assert allowed_actions(status) == ["retry"]
    reached = set(TERMINAL)
    while grown := {status for status in Status if TRANSITIONS[status] & reached} - reached:
        reached |= grown
    assert reached == set(Status)


def test_a_job_can_always_be_cancelled_before_it_ends() -> None:
    for status in set(Status) - TERMINAL - {Status.CANCELLING}:
        assert "cancel" in allowed_actions(status)
        wanted = Status.CANCELLING if status in HELD else Status.CANCELLED
        check_transition(status, wanted)


def test_a_refusal_says_what_is_possible() -> None:
    with pytest.raises(InvalidState) as caught:
        check_action("succeeded", Action.CANCEL)
    assert caught.value.extra() == {"current_status": "succeeded", "allowed_actions": []}
    with pytest.raises(InvalidState) as caught:
        check_transition("running", "cancelled")
    assert caught.value.extra() == {"current_status": "running", "allowed_actions": ["cancel", "pause"]}


def test_what_can_be_paused_and_only_what_is_paused_can_be_resumed() -> None:
    assert {status for status in Status if "pause" in allowed_actions(status)} == {Status.QUEUED, Status.RUNNING}
    assert {status for status in Status if "resume" in allowed_actions(status)} == {Status.PAUSED}
    check_transition("paused", "queued")
