"""Events of a job: appended with a number that has no gaps, read in order, and a wake-up for who waits.

The number comes from the job's own row, so appenders of one job wait for each other until commit: a reader that has
seen `seq` has seen everything before it. NOTIFY is only a wake-up; the table is the truth.

Events are kept as long as their job. What a trainer says is the one kind that nothing else bounds, so there are at most
`MAX_LOG_EVENTS` of it in a job, the last of which says so; `jobs.logs` has its newest lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import ARRAY, BigInteger, Text, cast, func, select, text, true
from sqlalchemy.orm import Session, aliased

from jobs.errors import NotFound
from jobs.tables import Document, Event, Job

CHANNEL = "egrpo_events"
MAX_LOG_EVENTS = 2_000
_NO_MORE_LOG_EVENTS: Document = {
    "level": "warning",
    "message": f"the job has {MAX_LOG_EVENTS} events of type log; what follows is in its log alone",
}


def append(session: Session, job_id: str, type: str, data: Document) -> int:
    """Appends one event and returns its number. Holds the job's row lock until the transaction ends.

    Raises:
        NotFound: there is no such job.
    """
    return append_all(session, job_id, [(type, data)])


def append_all(session: Session, job_id: str, events: Sequence[tuple[str, Document]]) -> int:
    """Appends events in order and returns the number of the job's last one; the wake-up is sent at commit.

    Those of type `log` that are too many are left out.

    Raises:
        NotFound: there is no such job.
    """
    session.flush()  # What is pending comes before the event that tells of it.
    told = json.dumps([{"type": type_, "data": data} for type_, data in events])
    values = {"events": told, "most_logs": MAX_LOG_EVENTS, "no_more_logs": json.dumps(_NO_MORE_LOG_EVENTS)}
    last: int | None = session.scalar(_APPEND, {"job_id": job_id, "channel": CHANNEL, **values})
    if last is None:
        raise NotFound(f"there is no job {job_id}")
    return last


# Numbers, rows and wake-up in one statement: the job's row is locked for as short as can be.
_APPEND = text("""
    WITH told AS (
        SELECT ordinal, event ->> 'type' AS type, event -> 'data' AS data,
               count(*) FILTER (WHERE event ->> 'type' = 'log') OVER (ORDER BY ordinal) AS nth_log
        FROM jsonb_array_elements(CAST(:events AS jsonb)) WITH ORDINALITY AS each (event, ordinal)
    ), counted AS (
        SELECT count(*) FILTER (WHERE type = 'log') AS logs, count(*) FILTER (WHERE type <> 'log') AS others FROM told
    ), job AS (
        UPDATE jobs SET
            next_seq = next_seq + others + least(logs, greatest(0, :most_logs - num_log_events)),
            num_log_events = num_log_events + logs
        FROM counted WHERE id = :job_id
        RETURNING next_seq, num_log_events - logs AS had_logs
    ), kept AS (
        SELECT ordinal, type, CASE WHEN type = 'log' AND had_logs + nth_log = :most_logs
                              THEN CAST(:no_more_logs AS jsonb) ELSE data END AS data
        FROM told, job WHERE type <> 'log' OR had_logs + nth_log <= :most_logs
    ), written AS (
        INSERT INTO events (job_id, seq, type, data)
        SELECT :job_id, next_seq - row_number() OVER (ORDER BY ordinal DESC), type, data FROM kept, job
    )
    SELECT next_seq - 1, pg_notify(:channel, :job_id) FROM job
""")


def read_all(
    session: Session, wanted: Sequence[tuple[str, int]], *, limit: int
) -> Mapping[tuple[str, int], list[Event]]:
    """Returns, for each (job, number), the events with a number above it, in order: one query for all."""
    job_ids, numbers = [job_id for job_id, _ in wanted], [number for _, number in wanted]
    asked = (
        func.unnest(cast(job_ids, ARRAY(Text)), cast(numbers, ARRAY(BigInteger)))
        .table_valued("job_id", "after")
        .render_derived()
    )
    those = (
        select(Event)
        .where(Event.job_id == asked.c.job_id, Event.seq > asked.c.after)
        .order_by(Event.seq)
        .limit(limit)
        .lateral()
    )
    event = aliased(Event, those)
    found: dict[tuple[str, int], list[Event]] = {each: [] for each in wanted}
    for row, after in session.execute(select(event, asked.c.after).select_from(asked).join(those, true())):
        found[row.job_id, after].append(row)
    return {each: sorted(rows, key=lambda row: row.seq) for each, rows in found.items()}


def last_numbers(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Returns the number of each job's last event."""
    rows = session.execute(select(Job.id, Job.next_seq - 1).where(Job.id.in_(job_ids)))
    return {row[0]: row[1] for row in rows}
