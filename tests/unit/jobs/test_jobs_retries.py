"""The retry policy is the table in the documentation, and a reason's own word comes before it."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.retries import RETRY_CLASSES, Retry, RetryClass, retry_class_of
from jobs.states import StatusReason

PAGE = Path(__file__).parents[3] / "docs" / "reliability.md"


def reason(code: str, *, retryable: bool = True) -> StatusReason:
    return {"code": code, "message": "why", "retryable": retryable, "actor": "system"}


def test_the_page_has_the_table() -> None:
    shown = {}
    for classes, codes in re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|", PAGE.read_text(), re.MULTILINE):
        shown |= dict.fromkeys(re.findall(r"`(\w+)`", codes), RetryClass(classes))
    assert shown == RETRY_CLASSES


@pytest.mark.parametrize(
    ("code", "retryable", "expected"),
    [
        ("stalled", True, RetryClass.ELSEWHERE),
        ("out_of_memory", False, RetryClass.NONE),
        ("reward_failed", False, RetryClass.NONE),
        ("reward_failed", True, RetryClass.BACK_OFF),
        ("a_new_code", True, RetryClass.BACK_OFF),
        ("a_new_code", False, RetryClass.NONE),
    ],
)
def test_the_word_of_who_saw_the_end_is_the_last(code: str, retryable: bool, expected: RetryClass) -> None:
    assert retry_class_of(reason(code, retryable=retryable)) is expected


def test_the_pause_doubles_up_to_five_minutes() -> None:
    retry = Retry(timedelta(seconds=10))
    assert [retry.after(n).total_seconds() for n in (0, 1, 2, 3, 6, 99)] == [10, 10, 20, 40, 300, 300]
