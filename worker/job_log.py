"""The log of a job as its worker writes it: what the trainer prints and reports, and what is done about the attempt.

Three threads add lines (the supervisor's, and the trainer's two readers); one publishes them, a batch in one
transaction about every second. Nobody waits for it, and no fault in it ends an attempt: a log is not worth one. A
worker that is killed takes the last second of its log with it.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from jobs import logs
from jobs.db import SessionFactory, transaction
from jobs.leases import Claim
from jobs.logs import Level, Line
from worker.fence import Fence
from worker.heartbeat import Heartbeat
from worker.outcome import Reason
from worker.output import OutputReader
from worker.protocol import ErrorEvent, LogEvent
from worker.publisher import Lane
from worker.redaction import Redactor
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_LINES_PER_BATCH = 512


class LogWriter:
    """Writes the lines of one claim. `publish` is called by one thread, `add_last` when that one has done its work.

    The numbers are chosen before the transaction: one whose answer got lost is repeated with the same numbers, and no
    line is there twice. Nobody else numbers lines of the job meanwhile, because that takes the lease.
    """

    def __init__(self, sessions: SessionFactory, claim: Claim, fence: Fence) -> None:
        """Prepares the writer.

        Args:
            sessions: Makes database sessions.
            claim: Whose log it is.
            fence: Guards every transaction.
        """
        self._sessions = sessions
        self._claim = claim
        self._fence = fence
        self._next: int | None = None

    def publish(self, batch: Sequence[Line]) -> None:
        """Writes the batch, all or nothing. Safe to repeat.

        Raises:
            LeaseLost: The epoch is over.
            DatabaseUnavailable: The database is down; nothing was written, or all of it.
        """
        if self._next is None:
            with transaction(self._sessions) as session:
                self._next = logs.last_number(session, self._fence.pass_through(session).id) + 1
        with transaction(self._sessions) as session:
            job = self._fence.pass_through(session)
            logs.append(session, job.id, self._claim.attempt, self._next, batch)
        self._next += len(batch)

    def add_last(self, session: Session, line: Line) -> None:
        """Adds the line with which the attempt ends, in the transaction that ends it."""
        first = logs.last_number(session, self._claim.job_id) + 1
        logs.append(session, self._claim.job_id, self._claim.attempt, first, [line])


class JobLog:
    """The log of one attempt. Secrets are taken out of every line."""

    def __init__(
        self, settings: WorkerSettings, sessions: SessionFactory, claim: Claim, fence: Fence, heartbeat: Heartbeat
    ) -> None:
        """Prepares the log; nothing is written before `start`.

        Args:
            settings: The worker's settings.
            sessions: Makes database sessions.
            claim: Whose log it is.
            fence: Guards every transaction.
            heartbeat: Says whether the lease is still held.
        """
        self._claim = claim
        self._writer = LogWriter(sessions, claim, fence)
        self._interval_s = settings.publish_seconds
        self._lane: Lane[Line] = Lane(
            "log", self._writer.publish, heartbeat, max_batch=_LINES_PER_BATCH, gather_s=self._interval_s
        )
        self._reader: OutputReader | None = None
        self.redact = Redactor.of(settings, os.environ)

    def hide(self, secrets: Iterable[str]) -> None:
        """Takes these values, too, out of every line from now on."""
        self.redact = self.redact.knowing(secrets)

    def start(self) -> None:
        """Starts publishing."""
        self._lane.start()

    def close(self) -> None:
        """Says that nothing more will be added."""
        self._lane.close()

    @property
    def done(self) -> bool:
        """Whether everything was published after `close`, or nothing more can be."""
        return self._lane.done

    def say(self, event: str, **fields: object) -> None:
        """Adds a line about the attempt, and logs it in this process."""
        shown = " ".join(f"{name}={value}" for name, value in fields.items())
        log.info("event=%s job_id=%s attempt=%d %s", event, self._claim.job_id, self._claim.attempt, shown)
        self._add("supervisor", "info", f"event={event} {shown}".rstrip())

    def tell(self, event: LogEvent | ErrorEvent) -> None:
        """Adds what the trainer reports."""
        if isinstance(event, ErrorEvent):
            self._add("trainer", "error", f"{event.code}: {event.message}")
        else:
            self._add("trainer", event.level, event.message)

    def follow(self, output: Path) -> None:
        """Adds what is printed into a file from now on."""
        self._reader = OutputReader(output, lambda text: self._add("output", "info", text), self._interval_s)
        self._reader.start()

    def unfollow(self) -> None:
        """Returns when everything that was printed has been added."""
        if self._reader is not None:
            self._reader.finish()

    def conclude(self, session: Session, reason: Reason | None) -> None:
        """Writes the last line of the attempt, in the transaction that ends it."""
        if reason is None:
            self._writer.add_last(session, Line("supervisor", "info", "event=attempt_succeeded"))
            return
        level: Level = "warning" if reason.retryable else "error"
        message = self.redact(f"event=attempt_ended reason={reason.code} message={reason.message}")
        self._writer.add_last(session, Line("supervisor", level, message))

    def _add(self, source: logs.Source, level: Level, message: str) -> None:
        self._lane.put(Line(source, level, self.redact(message)))
