"""Rows as years of use leave them, written straight into the tables: for measures and for tests of query plans.

Jobs are a second apart and end now; one project has nine in ten of them. The first job is long, the last ones are
queued, some before them run. No files lie behind the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.types.json import Jsonb

from jobs.ids import first_id_of, new_id
from jobs.spec import document_of, parse

METRIC_NAMES = ("reward", "loss", "grad_norm", "kl", "seconds", "clipped", "std", "eval_reward", "lr", "entropy")
NUM_OTHERS = 9  # Projects beside the large one.


@dataclass(frozen=True)
class Sizes:
    """How many rows to write."""

    jobs: int
    queued: int
    running: int
    metrics: int
    long_job_steps: int = 2_500

    @property
    def steps(self) -> int:
        """Steps of each job but the long one."""
        return max(1, self.metrics // (self.jobs * len(METRIC_NAMES)))


@dataclass(frozen=True)
class Filled:
    """What was written: the projects, and the ids of jobs by what they are good for. Those of the first project."""

    projects: list[str]
    long: str
    ended: list[str]
    running: list[str]
    queued: list[str]


def fill(connection: psycopg.Connection, sizes: Sizes) -> Filled:
    """Writes the rows, commits, and has the planner's statistics taken."""
    projects = [new_id("prj") for _ in range(1 + NUM_OTHERS)]
    rows = list(_jobs(projects, sizes, datetime.now(UTC)))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO projects (id, name) VALUES (%s, %s)", [(id_, f"project {id_}") for id_ in projects]
        )
        columns = ", ".join(rows[0])
        with cursor.copy(f"COPY jobs ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(tuple(row.values()))
        for statement in _OF_EVERY_JOB:
            cursor.execute(statement, {"steps": sizes.steps, "names": list(METRIC_NAMES)})
        cursor.execute(_METRICS_OF_LONG_JOB, (rows[0]["id"], sizes.steps + 1, sizes.long_job_steps, list(METRIC_NAMES)))
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")
    own = [row for row in rows if row["project_id"] == projects[0]]
    by_status = {status: [str(row["id"]) for row in own if row["status"] == status] for status in ("running", "queued")}
    ended = [str(row["id"]) for row in own[1:] if row["status"] == "succeeded"]
    return Filled(projects, str(rows[0]["id"]), ended, by_status["running"], by_status["queued"])


def _jobs(projects: list[str], sizes: Sizes, now: datetime) -> Iterator[dict[str, object]]:
    spec = parse(
        {
            "name": "posters",
            "base_model": "tiny-flux-shapes",
            "prompts": {"inline": ["a red circle", "a blue square left of a yellow triangle"] * 10},
            "reward": {"components": [{"type": "shapes"}]},
        }
    )
    document, digest = Jsonb(document_of(spec)), spec.train_spec().digest()
    for number in range(sizes.jobs):
        left = sizes.jobs - number
        created_at = now - timedelta(seconds=left)
        status = _status(number, left, sizes)
        is_running, has_run = status == "running", status != "queued"
        step = sizes.steps if has_run else 0
        yield {
            "id": first_id_of("job", created_at),
            "project_id": projects[0 if number % 10 or is_running or number == 0 else 1 + number // 10 % NUM_OTHERS],
            "name": f"posters-{number % 1000}",
            "metadata": Jsonb({"team": "posters", "ticket": f"ML-{number % 1000}"}),
            "spec": document,
            "spec_digest": digest,
            "base_model": "tiny-flux-shapes" if number % 100 else "flux-1-dev",
            "status": status,
            "phase": {"queued": "waiting_capacity", "running": "training"}.get(status, "done"),
            "progress": Jsonb({"step": step, "total_steps": 300, "steps_per_second": None, "eta_seconds": None}),
            "epoch": int(has_run),
            "attempt": int(has_run),
            "lease_owner": f"worker-{number}" if is_running else None,
            "lease_expires_at": now + timedelta(hours=1) if is_running else None,
            "first_heartbeat_at": created_at if is_running else None,
            "next_seq": 6,
            "created_at": created_at,
            "started_at": created_at if has_run else None,
            "finished_at": created_at + timedelta(minutes=10) if has_run and not is_running else None,
        }


def _status(number: int, left: int, sizes: Sizes) -> str:
    if left <= sizes.queued:
        return "queued"
    if left <= sizes.queued + sizes.running:
        return "running"
    if number % 2000 == 1999:
        return "paused"
    return "failed" if number % 20 == 19 else "succeeded"


_METRICS_OF_LONG_JOB = """
    INSERT INTO metrics (job_id, step, name, value, epoch)
    SELECT %s, step, name, random(), 1 FROM generate_series(%s::int, %s) AS step, unnest(%s::text[]) AS name
"""
_OF_EVERY_JOB = (
    """
    INSERT INTO metrics (job_id, step, name, value, epoch)
    SELECT id, step, metric, random(), 1
    FROM jobs, generate_series(1, %(steps)s) AS step, unnest(%(names)s::text[]) AS metric WHERE epoch = 1
    """,
    """
    INSERT INTO events (job_id, seq, type, data, created_at)
    SELECT id, seq, 'metric', jsonb_build_object('step', seq, 'values', jsonb_build_object('reward', 0.5)), created_at
    FROM jobs, generate_series(1, 5) AS seq
    """,
    """
    INSERT INTO log_lines (job_id, number, attempt, source, level, message, created_at)
    SELECT id, number, 1, 'output', 'info', 'step ' || number, created_at
    FROM jobs, generate_series(1, 5) AS number WHERE epoch = 1
    """,
    """
    INSERT INTO attempts (id, job_id, number, epoch, worker, outcome, started_at, finished_at)
    SELECT replace(id, 'job_', 'att_'), id, 1, 1, 'worker-0', nullif(status, 'running'), started_at, finished_at
    FROM jobs WHERE epoch = 1
    """,
    """
    INSERT INTO checkpoints (id, job_id, epoch, step, kind, format, object_prefix, files, size_bytes, spec_digest)
    SELECT replace(id, 'job_', 'ckpt_'), id, 1, 300, 'adapter', 'diffusers', id || '/adapter',
           '[{"path": "pytorch_lora_weights.safetensors", "sha256": "", "size_bytes": 1}]', 1, spec_digest
    FROM jobs WHERE status = 'succeeded'
    """,
    """
    INSERT INTO samples (id, job_id, epoch, step, kind, path, prompt, seed, rewards, object_key, size_bytes, sha256)
    SELECT replace(left(id, -1), 'job_', 'smp_') || n, id, 1, 0, 'evaluation', n || '.png', 'a red circle', 1, '{}',
           id || '/' || n, 1, ''
    FROM jobs, generate_series(1, 4) AS n WHERE epoch = 1
    """,
    """
    INSERT INTO artifacts (job_id, name, epoch, object_key, content_type, size_bytes, sha256)
    SELECT id, file, 1, id || file, 'application/json', 1, ''
    FROM jobs, unnest('{report.json,curves.png}'::text[]) AS file WHERE status = 'succeeded'
    """,
    """
    INSERT INTO idempotency_keys (project_id, key, request_digest, status_code, response, created_at)
    SELECT project_id, id, '', 201, '{}', created_at FROM jobs
    """,
    """
    INSERT INTO api_keys (id, project_id, name, sha256, hint)
    SELECT replace(id, 'job_', 'key_'), project_id, 'ci', id, 'ega_' FROM jobs ORDER BY id LIMIT 2000
    """,
)
