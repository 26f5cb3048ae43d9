"""Which queued job a worker takes next.

By priority class, then fair share (the project whose jobs hold the fewest GPUs), then age. Jobs that ask for a GPU type
wait for workers of that type, the others for any; a worker takes no job that needs more GPUs than it has.

A *lane* is what the claim cannot tell apart: the queued jobs of one project, one class, one GPU type, one number of
GPUs. There are few lanes, however long the queue is: they are found by jumping along the index `ix_jobs_lanes`, and of
each lane only the head is looked at.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from sqlalchemy import bindparam, func, literal_column, select, text
from sqlalchemy.orm import Session, undefer

from jobs.tables import Job, Project

PRIORITIES = {"low": -10, "normal": 0, "high": 10}

# A limit of a project is checked under the lock of its row. Claimers do not queue for it: one that was stopped while it
# had the lock must not hold up the others. They come back a few times, each claim being over in milliseconds.
_PAUSES_S = (0.0, 0.005, 0.01, 0.02, 0.04)


@dataclass(frozen=True)
class Pool:
    """What a worker has: the type of its GPUs, `cpu` without any, and how many processes it can train with."""

    gpu_type: str = "cpu"
    num_gpus: int = 1


@dataclass(frozen=True)
class Lane:
    """Queued jobs that the claim cannot tell apart, and whether their project has limits."""

    project_id: str
    priority: int
    gpu_type: str
    num_gpus: int
    has_limits: bool


# What every project's workers hold now. A lease and nothing else says that a job is held.
_HELD = """
    held AS (
        SELECT j.project_id, count(*) AS num_jobs, sum(j.num_gpus) AS num_gpus,
               sum(j.num_gpus * extract(epoch FROM clock_timestamp() - greatest(a.started_at, {month}))) AS gpu_seconds
        FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.epoch = j.epoch
        WHERE j.lease_owner IS NOT NULL
        GROUP BY j.project_id
    )
"""
_MONTH = "date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"
_HELD = _HELD.format(month=_MONTH)

# Whether a project's limits leave room for one more job. A limit that is NULL binds nobody.
_HAS_HOURS = f"""
    (p.max_gpu_hours IS NULL OR p.max_gpu_hours * 3600 > coalesce(held.gpu_seconds, 0) + coalesce((
        SELECT sum(t.gpu_seconds) FROM gpu_time t WHERE t.project_id = p.id AND t.day >= ({_MONTH})
    ), 0))
"""
_HAS_ROOM = f"coalesce(held.num_jobs, 0) < coalesce(p.max_concurrent_jobs, 2147483647) AND {_HAS_HOURS}"

_LANE = "priority, coalesce(gpu_type, ''), num_gpus, project_id"
_LANES = text(f"""
    WITH RECURSIVE lanes AS (
        (
            SELECT priority, coalesce(gpu_type, '') AS gpu_type, num_gpus, project_id
            FROM jobs WHERE status = 'queued' ORDER BY {_LANE} LIMIT 1
        )
        UNION ALL
        SELECT next.priority, next.gpu_type, next.num_gpus, next.project_id
        FROM lanes CROSS JOIN LATERAL (
            SELECT priority, coalesce(gpu_type, '') AS gpu_type, num_gpus, project_id
            FROM jobs
            WHERE status = 'queued'
              AND ({_LANE}) > (lanes.priority, lanes.gpu_type, lanes.num_gpus, lanes.project_id)
            ORDER BY {_LANE} LIMIT 1
        ) next
    ), {_HELD}
    SELECT p.id AS project_id, lanes.priority, lanes.gpu_type, lanes.num_gpus,
           p.max_concurrent_jobs IS NOT NULL OR p.max_gpu_hours IS NOT NULL AS has_limits
    FROM lanes JOIN projects p ON p.id = lanes.project_id LEFT JOIN held ON held.project_id = p.id
    CROSS JOIN LATERAL (
        SELECT id FROM jobs
        WHERE status = 'queued' AND priority = lanes.priority AND coalesce(gpu_type, '') = lanes.gpu_type
          AND num_gpus = lanes.num_gpus AND project_id = lanes.project_id
          AND (not_before IS NULL OR not_before <= clock_timestamp())
          AND (avoid_worker IS DISTINCT FROM :owner OR avoid_until <= clock_timestamp())
        ORDER BY id LIMIT 1
    ) head
    WHERE lanes.gpu_type IN ('', :gpu_type) AND lanes.num_gpus <= :num_gpus AND {_HAS_ROOM}
    ORDER BY lanes.priority DESC, coalesce(held.num_gpus, 0), head.id
""")
_ROOM_OF_PROJECT = text(f"""
    WITH {_HELD} SELECT {_HAS_ROOM} FROM projects p LEFT JOIN held ON held.project_id = p.id WHERE p.id = :project_id
""")
# The limits of the projects that have any, and how far they are used: what `jobs.queue_places` tells of them.
LIMITS = text(f"""
    WITH {_HELD}
    SELECT p.id, coalesce(held.num_jobs, 0), p.max_concurrent_jobs, p.max_gpu_hours, {_HAS_HOURS},
           ((({_MONTH}) AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
    FROM projects p LEFT JOIN held ON held.project_id = p.id
    WHERE p.max_concurrent_jobs IS NOT NULL OR p.max_gpu_hours IS NOT NULL
""")


def take_next(session: Session, pool: Pool, owner: str) -> Job | None:
    """Returns the next job for a worker of the pool, by its name, its row locked, its spec loaded; or None.

    Rows that another worker is claiming are skipped, not waited for. Concurrency and GPU hours of a project are checked
    again under a lock, so that they hold however many workers claim at once.
    """
    lanes = _lanes(session, pool, owner)
    for pause_s in _PAUSES_S:
        time.sleep(random.uniform(0.5, 1.0) * pause_s)
        busy = []
        for lane in lanes:
            if lane.has_limits and not _lock(session, lane.project_id):
                busy.append(lane)
                continue
            has_room = not lane.has_limits or _has_room(session, lane.project_id)
            if has_room and (job := _head(session, lane, owner)) is not None:
                return job
        if not (lanes := busy):
            return None
    return None


def _lanes(session: Session, pool: Pool, owner: str) -> list[Lane]:
    """Returns the lanes with a job that a worker of the pool may take now, the one to take from first."""
    rows = session.execute(_LANES, {"gpu_type": pool.gpu_type, "num_gpus": pool.num_gpus, "owner": owner})
    return [Lane(**row) for row in rows.mappings()]


def _lock(session: Session, project_id: str) -> bool:
    statement = select(Project.id).where(Project.id == project_id)
    return session.scalar(statement.with_for_update(key_share=True, skip_locked=True)) is not None


def _has_room(session: Session, project_id: str) -> bool:
    return bool(session.scalar(_ROOM_OF_PROJECT, {"project_id": project_id}))


def _head(session: Session, lane: Lane, owner: str) -> Job | None:
    values = {"lane_gpu_type": lane.gpu_type, "lane_priority": lane.priority, "lane_num_gpus": lane.num_gpus}
    return session.scalar(
        _HEAD,
        {**values, "lane_project": lane.project_id, "owner": owner},
        execution_options={"populate_existing": True},
    )


# Built once, which takes longer than asking.
_HEAD = (
    select(Job)
    .where(
        # Literals, not parameters: so the planner sees that the partial index on this expression serves.
        Job.status == literal_column("'queued'"),
        func.coalesce(Job.gpu_type, literal_column("''")) == bindparam("lane_gpu_type"),
        Job.priority == bindparam("lane_priority"),
        Job.num_gpus == bindparam("lane_num_gpus"),
        Job.project_id == bindparam("lane_project"),
        Job.not_before.is_(None) | (Job.not_before <= func.clock_timestamp()),
        Job.avoid_worker.is_distinct_from(bindparam("owner")) | (Job.avoid_until <= func.clock_timestamp()),
    )
    .order_by(Job.id)
    .limit(1)
    .with_for_update(of=Job, skip_locked=True)
    .options(undefer(Job.spec))
)
