"""The S3 client signs with the store's time, so that a host whose clock is wrong can store what it made.

A signature carries a time, and stores refuse one that is 15 minutes off. Without this, a job on such a host would train
and keep its lease, which is a matter of the database's clock, and never commit anything. Every answer says what time it
is at the store; it is asked only after a refusal.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3
from minio import Minio
from minio import time as s3_time
from minio.error import S3Error

log = logging.getLogger(__name__)

# Less is no reason for a refusal, and answers take their time.
_NOTABLE = timedelta(seconds=60)


class StoreTimeMinio(Minio):  # type: ignore[misc]
    """As `Minio`; a request that is refused while the clocks differ is signed again with the store's time."""

    _ahead = timedelta(0)

    def now(self) -> datetime:
        """Returns the store's time, as far as it is known to differ from this host's."""
        return datetime.now(UTC) + self._ahead

    def _build_headers(self, *arguments: Any, **named: Any) -> tuple[dict[str, Any], datetime]:
        headers, _ = super()._build_headers(*arguments, **named)
        date = self.now()
        headers["x-amz-date"] = s3_time.to_amz_date(date)
        return headers, date

    def _url_open(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super()._url_open(*arguments, **named)
        except S3Error as error:
            if not self._learned_from(error.response):
                raise
        return super()._url_open(*arguments, **named)

    def _learned_from(self, refusal: urllib3.BaseHTTPResponse) -> bool:
        """Sets the clock by a refusal. Returns False if it was not the clock."""
        told = refusal.headers.get("Date")
        if refusal.status != 403 or told is None:
            return False
        ahead = parsedate_to_datetime(told) - datetime.now(UTC)
        if abs(ahead - self._ahead) < _NOTABLE:
            return False
        log.warning("event=clock_differs from=store seconds=%.0f", ahead.total_seconds())
        self._ahead = ahead
        return True
