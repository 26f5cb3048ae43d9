"""Writes what needs no upload: phases, progress, metrics and log lines, a batch in one transaction."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from jobs import events, lifecycle, metrics
from jobs.db import SessionFactory, transaction
from jobs.logs import short
from jobs.tables import Document, Job
from worker.fence import Fence
from worker.protocol import ErrorEvent, LogEvent, MetricEvent, PhaseEvent, ProgressEvent

RowEvent = PhaseEvent | ProgressEvent | MetricEvent | LogEvent | ErrorEvent


class RowWriter:
    """Publishes batches of one claim's row events."""

    def __init__(self, sessions: SessionFactory, fence: Fence) -> None:
        """Prepares the writer.

        Args:
            sessions: Makes database sessions.
            fence: Guards every transaction.
        """
        self._sessions = sessions
        self._fence = fence

    def publish(self, batch: Sequence[RowEvent]) -> None:
        """Writes the batch, all or nothing.

        Raises:
            LeaseLost: The epoch is over.
            DatabaseUnavailable: The database is down; nothing was written, or all of it.
        """
        with transaction(self._sessions) as session:
            job = self._fence.pass_through(session)
            self._tell(session, job, batch)
            metrics.upsert(session, job.id, job.epoch, _values(batch))
            progress = [event for event in batch if isinstance(event, ProgressEvent)]
            if progress:
                lifecycle.set_progress(session, job, progress[-1].model_dump(exclude={"type"}))

    def _tell(self, session: Session, job: Job, batch: Sequence[RowEvent]) -> None:
        """Appends the job's events in the order of the trainer's."""
        told: list[tuple[str, Document]] = []
        for event in batch:
            if isinstance(event, PhaseEvent):
                events.append_all(session, job.id, told)
                told = []
                lifecycle.set_phase(session, job, event.phase)
            elif isinstance(event, MetricEvent):
                told.append(("metric", {"step": event.step, "values": event.values}))
            elif isinstance(event, LogEvent):
                told.append(("log", {"level": event.level, "message": short(event.message)}))
            elif isinstance(event, ErrorEvent):
                told.append(("log", {"level": "error", "message": short(f"{event.code}: {event.message}")}))
        events.append_all(session, job.id, told)


def _values(batch: Sequence[RowEvent]) -> dict[tuple[int, str], float]:
    """Returns the numbers by step and name; of one that was told twice, the last."""
    told = [event for event in batch if isinstance(event, MetricEvent)]
    return {(event.step, name): value for event in told for name, value in event.values.items()}
