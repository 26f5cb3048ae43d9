"""Slow is not stuck."""

from worker.stall import StallDetector


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_before_the_first_steps_only_the_floor_counts() -> None:
    clock = Clock()
    detector = StallDetector(600, clock)
    clock.now += 599
    assert not detector.stalled
    clock.now += 2
    assert detector.stalled


def test_ten_median_steps_count_when_they_are_longer_than_the_floor() -> None:
    clock = Clock()
    detector = StallDetector(600, clock)
    for seconds in (100, 100, 100, 5000, 1):  # One slow step with an evaluation does not raise the median.
        clock.now += seconds
        detector.step()
    assert detector.limit_s == 1000
    clock.now += 999
    assert not detector.stalled
    clock.now += 2
    assert detector.stalled


def test_a_sign_of_life_that_is_no_step_counts_too() -> None:
    clock = Clock()
    detector = StallDetector(10, clock)
    for _ in range(5):
        clock.now += 9
        assert not detector.stalled
        detector.sign_of_life()
    assert detector.limit_s == 10
