"""Claims and runs jobs one at a time, and looks after the jobs of workers that died.

Two callers make it work: Celery's task, for a hint from the broker, in the main thread; and the poller thread, every
few seconds, because a hint may be lost with its broker. Whoever comes first runs jobs until none is eligible; the other
waits. The reaper thread works beside them.
"""

import logging
import threading
import time

from jobs import leases, limits, workers
from jobs.db import SessionFactory, transaction
from jobs.errors import DatabaseUnavailable, ServiceError
from jobs.leases import Claim
from jobs.store import ObjectStore
from worker.run_folder import free_bytes
from worker.settings import WorkerSettings
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)


class Runner:
    """One worker: at most one job at a time, until it is told to drain."""

    def __init__(self, settings: WorkerSettings, sessions: SessionFactory, store: ObjectStore) -> None:
        """Prepares the worker; nothing runs before `start`.

        Args:
            settings: The worker's settings.
            sessions: Makes database sessions.
            store: The object store.
        """
        self._settings = settings
        self._sessions = sessions
        self._store = store
        self.pool = settings.pool()
        self._one_at_a_time = threading.Lock()
        self._threads = [
            threading.Thread(target=self._poll, name="poller", daemon=True),
            threading.Thread(target=self._reap, name="reaper", daemon=True),
        ]
        self.draining = threading.Event()
        self._is_registered = False
        self._refusal: str | None = None  # Why no job is taken; the reaper thread tells it.

    def start(self) -> None:
        """Starts polling and reaping. A database that is not there yet is waited for."""
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """Stops claiming and asks a running trainer for a checkpoint. Safe in a signal handler."""
        self.draining.set()

    def join(self) -> None:
        """Returns when the last job has been put back or settled."""
        self.draining.set()
        for thread in self._threads:
            thread.join()
        try:
            with transaction(self._sessions) as session:
                workers.leave(session, self._settings.worker_name)
        except DatabaseUnavailable as error:  # Its row is taken away as a dead worker's.
            log.warning("event=worker_not_removed error=%s", error)

    def run_until_idle(self) -> None:
        """Runs jobs, one after the other, until none is eligible or the worker drains."""
        with self._one_at_a_time:
            while not self.draining.is_set() and self._run_one():
                pass

    def _run_one(self) -> bool:
        """Runs the next job to its end. Returns False if there was none, no room for it, or no database to ask."""
        free, min_free = free_bytes(self._settings.work_dir), self._settings.min_free_bytes
        if free < min_free:
            log.warning("event=no_room work_dir=%s free_bytes=%d", self._settings.work_dir, free)
            self._refusal = f"{free / 1e9:.1f} GB are free on its disk, and it must have {min_free / 1e9:.1f}"
            return False
        self._refusal = None
        claimed_at = time.monotonic()
        try:
            claim = self._claim()
        except DatabaseUnavailable as error:
            log.warning("event=claim_failed error=%s", error)
            return False
        if claim is None:
            return False
        Supervisor(
            self._settings, self._sessions, self._store, claim, claimed_at=claimed_at, draining=self.draining
        ).run()
        return True

    def _claim(self) -> Claim | None:
        with transaction(self._sessions) as session:
            if workers.is_draining(session, self._settings.worker_name):
                return None
            return leases.claim(session, self._settings.worker_name, self._settings.lease, self.pool)

    def _poll(self) -> None:
        while not self.draining.is_set():
            try:
                self.run_until_idle()
            except Exception:  # The job's lease runs out and another attempt follows; this worker must go on.
                log.exception("event=attempt_crashed")
            self.draining.wait(self._settings.poll_seconds)

    def _reap(self) -> None:
        while not self.draining.is_set():
            try:
                self._reap_once()
            except ServiceError as error:
                log.warning("event=reaping_failed error=%s", error)
            except Exception:
                log.exception("event=reaper_crashed")
            self.draining.wait(self._settings.reaper_seconds)

    def _reap_once(self) -> None:
        with transaction(self._sessions) as session:
            note = workers.beat if self._is_registered else workers.register
            note(session, self._settings.worker_name, self.pool, self._refusal)
        self._is_registered = True
        with transaction(self._sessions) as session:
            reaped = leases.reap(session, self._settings.retry)
        with transaction(self._sessions) as session:
            limits.enforce(session, self._settings.pause_grace)
        for job_id, status in reaped:
            log.warning("event=job_reaped job_id=%s status=%s", job_id, status)
