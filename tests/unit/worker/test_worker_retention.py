"""Which states stay."""

from jobs.tables import Checkpoint
from worker.retention import superfluous


def states(*rewards: float | None) -> list[Checkpoint]:
    """Returns states with these evaluation rewards, the newest first."""
    return [Checkpoint(id=str(n), step=100 - n, eval_reward=reward) for n, reward in enumerate(rewards)]


def going(*rewards: float | None, keep_last: int, keep_best: int) -> list[int]:
    return [int(state.id) for state in superfluous(states(*rewards), keep_last=keep_last, keep_best=keep_best)]


def test_the_last_and_the_best_stay() -> None:
    assert going(0.1, 0.2, 0.9, 0.3, 0.8, 0.0, keep_last=2, keep_best=2) == [3, 5]


def test_a_best_one_that_is_a_last_one_counts_once() -> None:
    assert going(0.9, 0.8, 0.1, 0.2, keep_last=2, keep_best=2) == [2, 3]


def test_states_without_an_evaluation_are_never_best() -> None:
    assert going(None, None, None, 0.1, None, keep_last=2, keep_best=2) == [2, 4]


def test_one_to_fall_back_on_always_stays() -> None:
    assert going(0.1, 0.1, 0.1, keep_last=1, keep_best=0) == [2]


def test_a_young_job_loses_nothing() -> None:
    assert going(0.1, keep_last=3, keep_best=2) == []
