"""Counting against a quota: in Valkey (or Redis), where all API processes count together, or else in this process.

A quota of q in w seconds lets q through at once and then one every w/q seconds. Of each name one number is kept, the
time at which its quota will be whole again (the generic cell rate algorithm): no timer, no window whose edge lets
twice as much through.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = logging.getLogger(__name__)

_TIMEOUT_S = 0.25
_PAUSE_S = 5.0
_MOST_NAMES = 10_000

# KEYS[1]: the name. ARGV: seconds for one, the window in seconds, whether to take one. One clock: the server's.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local each, window, take = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local whole_at = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local wait = whole_at + each - window - now
if take and wait <= 0 then
  whole_at = whole_at + each
  redis.call('SET', KEYS[1], string.format('%.6f', whole_at), 'PX', math.ceil(window * 1000))
end
return {string.format('%.6f', wait), string.format('%.6f', whole_at - now)}
"""


@dataclass(frozen=True)
class Quota:
    """So many in so many seconds."""

    limit: int
    window_s: float

    @property
    def each_s(self) -> float:
        """The seconds after which one more is let through."""
        return self.window_s / self.limit


@dataclass(frozen=True)
class Count:
    """Whether one was let through, what is left, and the seconds until another is and until the quota is whole."""

    is_within: bool
    remaining: int
    retry_after_s: float
    whole_in_s: float

    @classmethod
    def of(cls, quota: Quota, wait_s: float, whole_in_s: float) -> Count:
        """Returns the count, given how long the next has to wait, and until when something is missing."""
        # A microsecond is what rounding may take.
        remaining = math.floor((quota.window_s - whole_in_s) / quota.each_s + 1e-6)
        return cls(wait_s <= 0, max(remaining, 0), max(wait_s, 0.0), whole_in_s)


class LocalBuckets:
    """Counts in this process."""

    def __init__(self) -> None:
        self._whole_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def count(self, name: str, quota: Quota, *, take: bool = True) -> Count:
        """Takes one of the name's quota, or only looks."""
        now = time.monotonic()
        with self._lock:
            whole_at = max(self._whole_at.get(name, 0.0), now)
            wait = whole_at + quota.each_s - quota.window_s - now
            if take and wait <= 0:
                whole_at += quota.each_s
                self._whole_at[name] = whole_at
                if len(self._whole_at) > _MOST_NAMES:
                    self._forget(now)
        return Count.of(quota, wait, whole_at - now)

    def _forget(self, now: float) -> None:
        """Forgets the names whose quota is whole; if that is not half of them, those that are whole soonest."""
        latest = sorted(self._whole_at.items(), key=lambda item: item[1])[-_MOST_NAMES // 2 :]
        self._whole_at = {name: whole_at for name, whole_at in latest if whole_at > now}


class Buckets:
    """Counts in Valkey as long as it answers. While it does not, this process counts by itself and locks nobody out."""

    def __init__(self, broker_url: str) -> None:
        self._local = LocalBuckets()
        self._redis: Redis | None = None
        self._script: Any = None
        self._not_before = 0.0
        if broker_url.startswith(("redis://", "rediss://")):
            self._redis = Redis.from_url(
                broker_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
            )
            self._script = self._redis.register_script(_SCRIPT)

    def count(self, name: str, quota: Quota, *, take: bool = True) -> Count:
        """Takes one of the name's quota, or only looks."""
        if self._redis is not None and time.monotonic() >= self._not_before:
            try:
                arguments = [quota.each_s, quota.window_s, int(take)]
                wait, whole_in = self._script(keys=[f"egrpo:quota:{name}"], args=arguments)
                return Count.of(quota, float(wait), float(whole_in))
            except (RedisError, OSError) as error:
                self._not_before = time.monotonic() + _PAUSE_S
                log.warning("event=quotas_counted_locally error=%r", error)
        return self._local.count(name, quota, take=take)

    def close(self) -> None:
        """Closes the connections."""
        if self._redis is not None:
            self._redis.close()
