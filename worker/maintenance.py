"""`python -m worker maintenance`: what the service does from time to time, beside all jobs.

Each task of `PERIODIC` has a thread of its own, so that a slow or broken one holds up no other. Any number of these
processes may run: the database says whose turn a task is (`jobs.periodic`). SIGTERM ends the process within seconds,
and what was not finished is another's turn at once.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

from jobs import audit, deliveries, idempotency_keys, leases, limits, logs, periodic, workers
from jobs.db import SessionFactory, make_engine, make_session_factory, transaction
from jobs.errors import ServiceError
from jobs.ids import new_id
from jobs.store import ObjectStore
from worker.garbage import collect
from worker.settings import WorkerSettings
from worker.webhooks import send_until

log = logging.getLogger(__name__)

_RETRY_S = 1.0  # After the database could not be asked whose turn a task is.


@dataclass(frozen=True)
class Context:
    """What a task works with. One that runs for long returns when `stopping` is set, and is run again soon."""

    settings: WorkerSettings
    sessions: SessionFactory
    store: ObjectStore
    stopping: threading.Event


@dataclass(frozen=True)
class Periodic:
    """A task: what is done, and how often. It may be killed anywhere, and now and then run in two processes at once."""

    name: str
    every_seconds: Callable[[WorkerSettings], float]
    run: Callable[[Context], None]


def reap(context: Context) -> None:
    """Recovers the jobs of workers that died, and pauses those at a limit of their own; workers do it, too."""
    with transaction(context.sessions) as session:
        reaped = leases.reap(session, context.settings.retry)
    with transaction(context.sessions) as session:
        limits.enforce(session, context.settings.pause_grace)
    for job_id, status in reaped:
        log.warning("event=job_reaped job_id=%s status=%s", job_id, status)


def forget_dead_workers(context: Context) -> None:
    """Removes the rows of workers that were killed."""
    with transaction(context.sessions) as session:
        workers.remove_dead(session)


def remove_garbage(context: Context) -> None:
    """Removes from the store what nobody needs (`worker.garbage`)."""
    context.store.ensure_bucket()  # A new service's first round may be sooner than its API.
    report = collect(context.sessions, context.store, context.settings, stopping=context.stopping)
    log.info(
        "event=garbage_collected objects=%d orphans=%d removed=%d removed_bytes=%d refused=%d purged=%d missing=%d "
        "finished=%s",
        report.objects,
        report.orphans,
        report.removed,
        report.removed_bytes,
        report.refused,
        report.checkpoints_purged,
        len(report.missing),
        report.finished,
    )


def forget_idempotency_keys(context: Context) -> None:
    """Removes the stored answers of POSTs that nobody repeats any more."""
    age = timedelta(seconds=context.settings.idempotency_seconds)
    forgotten = more = 0
    while not context.stopping.is_set():
        with transaction(context.sessions) as session:
            more = idempotency_keys.forget_old(session, age)
        if more == 0:
            break
        forgotten += more
    log.info("event=idempotency_keys_forgotten keys=%d", forgotten)


def forget_audit_events(context: Context) -> None:
    """Removes audit events that are older than they are kept."""
    age = timedelta(days=context.settings.audit_days)
    more = 1
    while more and not context.stopping.is_set():
        with transaction(context.sessions) as session:
            more = audit.forget_old(session, age)


def send_webhooks(context: Context) -> None:
    """Sends messages to webhooks, for as long as this process lives (`worker.webhooks`)."""
    send_until(context.stopping, context.sessions, context.settings)


def forget_deliveries(context: Context) -> None:
    """Removes what was told webhooks long ago."""
    older_than = timedelta(days=context.settings.webhook_retention_days)
    forgotten = 1
    while forgotten and not context.stopping.is_set():
        with transaction(context.sessions) as session:
            forgotten = deliveries.forget(session, older_than)


def forget_old_logs(context: Context) -> None:
    """Removes the logs of jobs that ended long ago."""
    days = context.settings.retain_logs_days
    while days is not None and not context.stopping.is_set():
        with transaction(context.sessions) as session:
            if logs.forget_old(session, timedelta(days=days)) == 0:
                return


PERIODIC: tuple[Periodic, ...] = (
    Periodic("webhooks", lambda settings: settings.webhook_poll_seconds, send_webhooks),
    Periodic("old_deliveries", lambda _: 3600.0, forget_deliveries),
    Periodic("reap", lambda settings: settings.reaper_seconds, reap),
    Periodic("dead_workers", lambda _: 3600.0, forget_dead_workers),
    Periodic("idempotency_keys", lambda _: 3600.0, forget_idempotency_keys),
    Periodic("audit_events", lambda _: 24 * 3600.0, forget_audit_events),
    Periodic("old_logs", lambda _: 86_400.0, forget_old_logs),
    Periodic("garbage", lambda settings: settings.gc_seconds, remove_garbage),
)


class Maintenance:
    """One maintenance process, from its start to the last task's end."""

    def __init__(self, context: Context, tasks: Iterable[Periodic] = PERIODIC) -> None:
        """Prepares the process; nothing runs before `run`.

        Args:
            context: What the tasks work with.
            tasks: What is to be done.
        """
        self._context = context
        self._stopping = context.stopping
        # No two processes have the same owner, even if their hosts have the same name.
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{new_id('mnt')}"
        self._lease = timedelta(seconds=context.settings.maintenance_lease_seconds)
        self._threads = [
            threading.Thread(target=self._repeat, args=(task,), name=task.name, daemon=True) for task in tasks
        ]

    def run(self) -> None:
        """Runs the tasks until `stopping` is set, and for a few seconds more those that are under way."""
        for thread in self._threads:
            thread.start()
        while not self._stopping.wait(self._lease.total_seconds() / 3):
            self._tell(lambda session: periodic.renew(session, self._owner, self._lease))
        ends_at = time.monotonic() + self._context.settings.maintenance_grace_seconds
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        self._tell(lambda session: periodic.hand_back(session, self._owner))

    def _repeat(self, task: Periodic) -> None:
        while not self._stopping.is_set():
            every = timedelta(seconds=task.every_seconds(self._context.settings))
            try:
                with transaction(self._context.sessions) as session:
                    wait_s = periodic.take(session, task.name, self._owner, every, self._lease)
            except ServiceError as error:
                log.warning("event=task_not_taken task=%s error=%s", task.name, error)
                wait_s = _RETRY_S
            if wait_s == 0:
                self._run_once(task)
            else:
                self._stopping.wait(min(wait_s, every.total_seconds()))

    def _run_once(self, task: Periodic) -> None:
        error: str | None = None
        try:
            task.run(self._context)
        except ServiceError as failure:
            log.warning("event=task_failed task=%s error=%s", task.name, failure)
            error = failure.code
        except Exception as failure:  # The other tasks, and the next run of this one, must go on.
            log.exception("event=task_crashed task=%s", task.name)
            error = type(failure).__name__
        if not self._stopping.is_set():  # It may have ended early, for that reason: another process runs it again.
            self._tell(lambda session: periodic.finish(session, task.name, self._owner, error))

    def _tell(self, statement: Callable[..., None]) -> None:
        """Runs one statement; if it cannot, a lease runs out and the task is somebody's turn a little later."""
        try:
            with transaction(self._context.sessions) as session:
                statement(session)
        except ServiceError as error:
            log.warning("event=maintenance_not_noted error=%s", error)


def run_maintenance(settings: WorkerSettings) -> int:
    """Runs the process until SIGTERM or SIGINT. Returns its exit code."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    engine = make_engine(settings, application="egrpo-maintenance")
    context = Context(settings, make_session_factory(engine), ObjectStore(settings), stopping)
    log.info("event=maintenance_started tasks=%s", ",".join(task.name for task in PERIODIC))
    Maintenance(context).run()
    engine.dispose()
    log.info("event=maintenance_stopped")
    return 0
