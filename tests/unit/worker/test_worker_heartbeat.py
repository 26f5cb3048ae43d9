"""A lease is lost by the worker's own clock before the database gives it to another."""

import threading
import time

import pytest

from jobs.errors import DatabaseUnavailable, LeaseLost, StoreUnavailable
from worker.heartbeat import Heartbeat
from worker.publisher import Lane


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def test_without_a_renewal_the_lease_is_lost_a_sixth_before_its_end() -> None:
    clock = Clock()
    heartbeat = Heartbeat(lambda: "run", lease_s=90, interval_s=15, claimed_at=0, clock=clock)
    clock.now = 74.9
    assert not heartbeat.lost
    clock.now = 75.1
    assert heartbeat.lost


def test_the_deadline_counts_from_before_the_renewal_was_sent() -> None:
    clock = Clock()

    def slow() -> str:
        clock.now += 60  # The answer takes a minute; the database may have renewed at its beginning.
        stopped.set()
        return "cancel"

    stopped = threading.Event()
    heartbeat = Heartbeat(slow, lease_s=90, interval_s=1000, claimed_at=0, clock=clock)
    heartbeat.start()
    wait_for(lambda: heartbeat.desired_state == "cancel")
    clock.now = 74.9
    assert not heartbeat.lost
    clock.now = 75.1
    assert heartbeat.lost
    heartbeat.stop()


def test_a_late_renewal_does_not_bring_a_lost_lease_back() -> None:
    clock, sent, answer = Clock(), threading.Event(), threading.Event()

    def hangs() -> str:
        sent.set()
        answer.wait()
        return "run"

    heartbeat = Heartbeat(hangs, lease_s=90, interval_s=0.01, claimed_at=-30, clock=clock)
    heartbeat.start()  # Sent at 0, so that its answer would be good until 75.
    assert sent.wait(60)
    clock.now = 46  # The renewal before it was good until 45.
    assert heartbeat.lost
    answer.set()
    wait_for(lambda: not heartbeat._thread.is_alive())  # It renews nothing more.
    assert heartbeat.lost


def test_renewals_go_on_while_the_database_is_away_for_a_while() -> None:
    answers = iter([DatabaseUnavailable("away"), DatabaseUnavailable("away"), "run", "pause"])

    def renew() -> str:
        answer = next(answers, "pause")
        if isinstance(answer, Exception):
            raise answer
        return answer

    heartbeat = Heartbeat(renew, lease_s=90, interval_s=0.01, claimed_at=time.monotonic())
    heartbeat.start()
    wait_for(lambda: heartbeat.desired_state == "pause")
    assert not heartbeat.lost
    heartbeat.stop()


def test_the_word_of_the_database_is_final() -> None:
    def renew() -> str:
        raise LeaseLost("over")

    heartbeat = Heartbeat(renew, lease_s=90, interval_s=0.01, claimed_at=time.monotonic())
    heartbeat.start()
    wait_for(lambda: heartbeat.lost)
    heartbeat.stop()


def drain(lane: Lane[int]) -> None:
    lane.close()
    wait_for(lambda: lane.done)


@pytest.fixture
def healthy() -> Heartbeat:
    return Heartbeat(lambda: "run", lease_s=90, interval_s=15, claimed_at=time.monotonic())


def test_a_lane_publishes_in_order_and_in_batches(healthy: Heartbeat) -> None:
    batches: list[list[int]] = []
    lane: Lane[int] = Lane("l", lambda batch: batches.append(list(batch)), healthy, max_batch=10, gather_s=0.02)
    for number in range(25):
        lane.put(number)
    lane.start()
    drain(lane)
    assert [number for batch in batches for number in batch] == list(range(25))
    assert [len(batch) for batch in batches] == [10, 10, 5]


def test_a_lane_repeats_what_may_pass_and_loses_nothing(healthy: Heartbeat) -> None:
    published: list[int] = []
    failures = [StoreUnavailable("down")] * 2

    def publish(batch: list[int]) -> None:
        if failures:
            raise failures.pop()
        published.extend(batch)

    lane: Lane[int] = Lane("l", publish, healthy, max_batch=2, gather_s=0)  # type: ignore[arg-type]
    lane.start()
    for number in range(5):
        lane.put(number)
    drain(lane)
    assert published == [0, 1, 2, 3, 4]


def test_a_lane_that_meets_a_lost_lease_publishes_nothing_more_and_tells(healthy: Heartbeat) -> None:
    calls: list[object] = []

    def publish(batch: object) -> None:
        calls.append(batch)
        raise LeaseLost("over")

    lane: Lane[int] = Lane("l", publish, healthy, max_batch=1, gather_s=0)
    lane.start()
    lane.put(1)
    lane.put(2)
    drain(lane)
    assert calls == [[1]]
    assert healthy.lost


def test_a_fault_in_publishing_is_kept_for_the_supervisor(healthy: Heartbeat) -> None:
    def publish(batch: object) -> None:
        raise ZeroDivisionError

    lane: Lane[int] = Lane("l", publish, healthy, max_batch=1, gather_s=0)
    lane.start()
    lane.put(1)
    drain(lane)
    assert isinstance(lane.failure, ZeroDivisionError)


def test_a_lane_is_waited_for_until_the_items_so_far_are_published(healthy: Heartbeat) -> None:
    published: list[int] = []
    held = threading.Event()

    def publish(batch: list[int]) -> None:
        held.wait()
        published.extend(batch)

    lane: Lane[int] = Lane("l", publish, healthy, max_batch=10, gather_s=3600)  # type: ignore[arg-type]
    lane.put(1)
    lane.put(2)
    so_far = lane.num_put
    lane.start()
    waiter = threading.Thread(target=lane.wait_for, args=(so_far,))
    waiter.start()
    waiter.join(0.1)
    assert waiter.is_alive()
    held.set()
    waiter.join()
    assert published == [1, 2]


def test_nobody_waits_for_a_lane_that_ended_or_whose_lease_ran_out(healthy: Heartbeat) -> None:
    def publish(batch: object) -> None:
        raise ZeroDivisionError

    lane: Lane[int] = Lane("l", publish, healthy, max_batch=1, gather_s=0)
    lane.put(1)
    lane.start()
    with pytest.raises(RuntimeError, match="1 items are missing"):
        lane.wait_for(1)
    healthy.give_up()
    with pytest.raises(LeaseLost, match="ran out"):
        lane.wait_for(1)
