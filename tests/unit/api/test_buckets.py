"""Counting against a quota, by a clock that the test sets."""

from __future__ import annotations

import pytest

from api import buckets
from api.buckets import LocalBuckets, Quota
from api.rate_limits import _network


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(buckets, "time", clock)
    return clock


def test_a_whole_quota_at_once_and_then_one_after_the_other(clock: Clock) -> None:
    counted, quota = LocalBuckets(), Quota(3, 60.0)
    counts = [counted.count("a", quota) for _ in range(4)]
    assert [(count.is_within, count.remaining) for count in counts] == [(True, 2), (True, 1), (True, 0), (False, 0)]
    assert (counts[3].retry_after_s, counts[3].whole_in_s) == (20.0, 60.0)
    assert counted.count("b", quota).is_within, "each name for itself"
    clock.now += 19.9
    assert not counted.count("a", quota).is_within, "what was refused costs nothing"
    clock.now += 0.2
    assert counted.count("a", quota).is_within
    assert not counted.count("a", quota).is_within
    clock.now += 3600
    assert counted.count("a", quota).remaining == 2, "never more than the quota"


def test_to_look_takes_nothing(clock: Clock) -> None:
    counted, quota = LocalBuckets(), Quota(1, 60.0)
    assert all(counted.count("a", quota, take=False).is_within for _ in range(3))
    assert counted.count("a", quota).is_within
    assert not counted.count("a", quota, take=False).is_within


def test_memory_is_bounded_and_who_is_over_the_quota_is_remembered(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "_MOST_NAMES", 10)
    counted, quota = LocalBuckets(), Quota(2, 60.0)
    for _ in range(2):
        counted.count("busy", quota)
    for number in range(100):
        counted.count(f"name {number}", quota)
    assert len(counted._whole_at) <= 10
    assert not counted.count("busy", quota).is_within


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_what_one_customer_has(address: str, network: str) -> None:
    assert _network(address) == network
