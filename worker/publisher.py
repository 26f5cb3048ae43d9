"""Brings what the trainer produced into the database and the store, without ever holding the trainer up.

The trainer's reader thread only puts events into two queues. Two threads of low priority consume them: one writes rows,
a batch in one transaction about every second; the other uploads files and then inserts their rows, one by one. They are
apart so that a store that is down delays no metric, and both retry for as long as the lease is renewed, so that nothing
is lost. The other way round there is an order: the files of an event are named in the database only after everything
that the trainer told before it, because a job resumes after its last checkpoint and tells no earlier step again. Every
transaction begins with the epoch guard; the first `LeaseLost` ends all publishing.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from jobs.errors import LeaseLost, Unavailable
from worker.heartbeat import Heartbeat, be_nice

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_FIRST_BACKOFF_S = 0.25
_LAST_BACKOFF_S = 5.0
_PAUSE_SLICE_S = 0.25


class _AtOnce:
    """Stands in the queue where somebody waits for what is before it."""


_AT_ONCE = _AtOnce()


class Lane(Generic[Item]):
    """A queue with one thread that publishes its items in order, in batches, and retries what may pass."""

    def __init__(
        self,
        name: str,
        publish: Callable[[Sequence[Item]], None],
        heartbeat: Heartbeat,
        *,
        max_batch: int,
        gather_s: float,
    ) -> None:
        """Prepares the thread; nothing runs before `start`.

        Args:
            name: Of the thread, for logs.
            publish: Publishes one batch, all or nothing; raises `LeaseLost`, or `Unavailable` for what may pass.
            heartbeat: Says whether the lease is still held.
            max_batch: The most items in one call.
            gather_s: How long to gather items after the first one, so that a batch is worth its transaction.
        """
        self._publish = publish
        self._heartbeat = heartbeat
        self._max_batch = max_batch
        self._gather_s = gather_s
        self._items: queue.SimpleQueue[Item | _AtOnce | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._num_published = 0
        self._progress = threading.Condition()
        self.num_put = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failure: Exception | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Adds an item; never blocks. One thread puts."""
        self.num_put += 1
        self._items.put(item)

    def close(self) -> None:
        """Says that nothing more will be put."""
        self._closed.set()
        self._items.put(None)

    @property
    def done(self) -> bool:
        """Whether everything was published after `close`, or nothing more can be."""
        return not self._thread.is_alive()

    def wait_for(self, num_items: int) -> None:
        """Returns when the first `num_items` items are published, which no longer waits for more to gather.

        Raises:
            LeaseLost: The lease ran out first.
            RuntimeError: The thread ended first, which `failure` explains.
        """
        self._items.put(_AT_ONCE)
        with self._progress:
            while self._num_published < num_items:
                if self._heartbeat.lost:
                    raise LeaseLost("the lease ran out while publishing")
                if self.done:
                    raise RuntimeError(f"{self._thread.name}: {num_items - self._num_published} items are missing")
                self._progress.wait(_PAUSE_SLICE_S)

    def _run(self) -> None:
        be_nice()
        try:
            while batch := self._gather():
                self._publish_until_done(batch)
                with self._progress:
                    self._num_published += len(batch)
                    self._progress.notify_all()
        except LeaseLost as error:
            log.warning("event=lease_lost lane=%s error=%s", self._thread.name, error)
            self._heartbeat.give_up()
        except Exception as error:
            log.exception("event=publishing_failed lane=%s", self._thread.name)
            self.failure = error

    def _gather(self) -> list[Item]:
        """Returns the next batch, or an empty one when the queue is closed and empty."""
        batch: list[Item] = []
        deadline = None
        while len(batch) < self._max_batch:
            try:
                item = self._items.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                self._items.put(None)  # For the next call, which then ends the thread.
                break
            if isinstance(item, _AtOnce):
                if batch:
                    break
                continue
            batch.append(item)
            if deadline is None:
                deadline = time.monotonic() + (0.0 if self._closed.is_set() else self._gather_s)
        return batch

    def _publish_until_done(self, batch: Sequence[Item]) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._heartbeat.lost:
            try:
                self._publish(batch)
            except Unavailable as error:
                log.warning("event=publishing_retried lane=%s in_s=%.2f error=%s", self._thread.name, backoff_s, error)
                self._pause(backoff_s)
                backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
            else:
                return
        raise LeaseLost("the lease ran out while publishing")

    def _pause(self, seconds: float) -> None:
        """Sleeps, but not beyond the end of the lease."""
        until = time.monotonic() + seconds
        while not self._heartbeat.lost and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _PAUSE_SLICE_S))
