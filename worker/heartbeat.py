"""Keeps a lease alive, and knows without the database when it must be taken for lost.

A thread renews; everybody else reads. The deadline is counted on this machine's own steady clock from the moment before
the last successful renewal was sent, so that it can only be earlier than the database's: a supervisor that is cut off,
or whose database call hangs, still stops its trainer while no other worker may hold the job.
"""

import logging
import os
import threading
import time
from collections.abc import Callable

from jobs.errors import DatabaseUnavailable, LeaseLost

log = logging.getLogger(__name__)

# The part of the lease that is kept for killing the trainer: 15 s of the default 90 s.
_MARGIN = 1 / 6
_RETRY_S = 1.0


class Heartbeat:
    """Renews one lease every `interval_s` until stopped or lost."""

    def __init__(
        self,
        renew: Callable[[], str],
        *,
        lease_s: float,
        interval_s: float,
        claimed_at: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the thread; nothing runs before `start`.

        Args:
            renew: Renews the lease in the database and returns the desired state; raises `LeaseLost`.
            lease_s: How long a renewal lasts.
            interval_s: Time between two renewals.
            claimed_at: `clock()` from before the claim was sent.
            clock: Seconds on a clock that never goes back.
        """
        self._renew = renew
        self._lease_s = lease_s
        self._interval_s = interval_s
        self._clock = clock
        self._deadline = self._deadline_from(claimed_at)
        self._lost = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.desired_state = "run"

    def start(self) -> None:
        """Sends the first heartbeat at once, in the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the renewals, and all publishing that still waits for a lease. A call that hangs is left behind."""
        self._lost.set()
        self._stopped.set()
        self._thread.join(timeout=self._interval_s)

    @property
    def lost(self) -> bool:
        """Whether the job must be taken for another worker's: by the database's word, or because time is up.

        Once true it stays true: the trainer has been killed for it, so a renewal that arrives late must not bring the
        publishing back to life.
        """
        if self._clock() >= self._deadline:
            self._lost.set()
        return self._lost.is_set()

    def give_up(self) -> None:
        """Notes that another part learned from the database that the lease is gone."""
        self._lost.set()

    def _deadline_from(self, sent_at: float) -> float:
        return sent_at + self._lease_s * (1 - _MARGIN)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopped.wait(wait_s) and not self.lost:
            wait_s = self._interval_s if self._beat() else min(_RETRY_S, self._interval_s)

    def _beat(self) -> bool:
        """Renews once. Returns False if the database could not be asked."""
        sent_at = self._clock()
        try:
            self.desired_state = self._renew()
        except LeaseLost:  # Told by the supervisor, unless it has just settled the job itself.
            self.give_up()
            return True
        except DatabaseUnavailable as error:
            log.warning("event=heartbeat_failed seconds_left=%.1f error=%s", self._deadline - sent_at, error)
            return False
        self._deadline = self._deadline_from(sent_at)
        return True


def be_nice() -> None:
    """Lowers the priority of the calling thread, so that hashing and uploading never take a core from the trainer.

    Linux gives every thread its own priority; elsewhere there is none to set and the call does nothing.
    """
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
