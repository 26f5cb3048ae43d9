"""How many requests a key may make, and how many wrong keys an address may show, in a minute.

An address that showed too many wrong keys may still come with keys that were right a short while ago: behind a proxy
or a router, others have the same address. Unknown keys from there are refused without a look into the database.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import threading
import time

from api.buckets import Buckets, Count, Quota
from jobs.errors import RateLimited
from jobs.settings import Settings

_MINUTE_S = 60.0
_REMEMBERED_S = 600.0
_MOST_KEYS = 10_000


class RateLimits:
    """The limits of one API process."""

    def __init__(self, settings: Settings, buckets: Buckets) -> None:
        self._buckets = buckets
        self._requests = _per_minute(settings.rate_limit_per_minute)
        self._failures = _per_minute(settings.failed_auth_per_minute)
        self._right_until: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def take(self, key_id: str) -> dict[str, str]:
        """Counts a request of a key, and returns the headers that say what is left.

        Raises:
            RateLimited: nothing is left.
        """
        if self._requests is None:
            return {}
        return _headers_within("key", self._requests, self._buckets.count(f"key:{key_id}", self._requests))

    def check_address(self, address: str, key: str) -> None:
        """Passes if a key may be looked up that comes from the address.

        Raises:
            RateLimited: too many wrong ones came from there, and this one was not right lately.
        """
        if self._failures is not None and not self._was_right(key):
            count = self._buckets.count(f"address:{_network(address)}", self._failures, take=False)
            _headers_within("failed-auth", self._failures, count)

    def count_failure(self, address: str) -> None:
        """Counts a wrong key."""
        if self._failures is not None:
            self._buckets.count(f"address:{_network(address)}", self._failures)

    def note_right(self, key: str) -> None:
        """Notes that a key is right."""
        now = time.monotonic()
        with self._lock:
            if len(self._right_until) >= _MOST_KEYS:
                self._right_until.clear()
            self._right_until[_digest(key)] = now + _REMEMBERED_S

    def _was_right(self, key: str) -> bool:
        return self._right_until.get(_digest(key), 0.0) > time.monotonic()


def _headers_within(name: str, quota: Quota, count: Count) -> dict[str, str]:
    """Returns the headers of draft-ietf-httpapi-ratelimit-headers.

    Raises:
        RateLimited: the quota is used up.
    """
    headers = {
        "RateLimit-Policy": f'"{name}";q={quota.limit};w={quota.window_s:.0f}',
        "RateLimit": f'"{name}";r={count.remaining};t={math.ceil(count.whole_in_s)}',
    }
    if not count.is_within:
        raise RateLimited(
            f"at most {quota.limit} {_COUNTED[name]} in {quota.window_s:.0f} s",
            headers={**headers, "Retry-After": str(max(math.ceil(count.retry_after_s), 1))},
        )
    return headers


_COUNTED = {"key": "requests of a key", "failed-auth": "wrong API keys from an address"}


def _per_minute(limit: int) -> Quota | None:
    return Quota(limit, _MINUTE_S) if limit else None


def _network(address: str) -> str:
    """Returns what one customer of a provider has: an IPv4 address, or the first half of an IPv6 address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network(f"{ip}/64", strict=False))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
