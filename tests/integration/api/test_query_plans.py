"""Whatever the API, a worker or the reaper asks of a large database, an index answers it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from api_bench import SPEC, Bench
from fastapi.testclient import TestClient
from query_plans import Heard, complaints, listening
from server_fixtures import S3Server, fresh_database, libpq_url, settings_env
from service_rows import METRIC_NAMES, Filled, Sizes, fill
from sqlalchemy import update

from api.main import create_app
from jobs import api_keys, events, garbage, leases, lifecycle, limits, metrics
from jobs.queue import Pool
from jobs.settings import Settings
from jobs.tables import Project
from worker.maintenance import PERIODIC, Context
from worker.settings import WorkerSettings

SIZES = Sizes(jobs=10_000, queued=2_000, running=10, metrics=100_000)
LEASE, RETRY = timedelta(seconds=90), leases.Retry(timedelta(seconds=1))

# Reads much and is meant to. Each is known by a part of its text.
MEANT = {
    "FROM checkpoints JOIN jobs": "the newest adapters lie behind the jobs that have not ended",
    "WITH counted AS": "thinning reads all rows of one job, once",
    "FROM jobs WHERE status = 'queued' ORDER BY id\n": "a picture of the queue, shared by many requests",
}


@dataclass
class Large:
    bench: Bench
    rows: Filled
    connection: psycopg.Connection
    key: str

    def check(self, heard: Heard) -> None:
        wrong = self.wrong_with(heard)
        assert not wrong, "\n\n".join(wrong)

    def wrong_with(self, heard: Heard) -> list[str]:
        """Returns what no index serves, with the statements."""
        return [
            f"{complaint}: {statement} {parameters}"
            for statement, told in heard.statements.items()
            if not any(part in statement for part in MEANT)
            for parameters in told
            for complaint in complaints(self.connection, statement, parameters)
        ]


@pytest.fixture(scope="module")
def large(postgres_url: str, migrated_template: str, valkey_url: str, s3: S3Server) -> Iterator[Large]:
    """One large database for all tests of the module: to fill it takes the longest."""
    with fresh_database(postgres_url, migrated_template) as url, psycopg.connect(libpq_url(url)) as connection:
        rows = fill(connection, SIZES)
        env = settings_env(url, valkey_url, s3, "none")
        settings = Settings(**{name.removeprefix("EGRPO_").lower(): value for name, value in env.items()})
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            bench = Bench(client, settings)
            with bench.transaction() as session:
                key = api_keys.create(session, rows.projects[0], "test")
            yield Large(bench, rows, connection, key)


def values_of(rows: Filled) -> dict[str, list[Any]]:
    """Returns what to put into the parameters of paths and queries, by name: several, where they differ in cost."""
    job = rows.ended[len(rows.ended) // 2]
    return {
        "job_id": [job, rows.queued[-1]],
        "checkpoint_id": [job.replace("job_", "ckpt_")],
        "adapter_id": [job.replace("job_", "ckpt_")],
        "sample_id": [job.replace("job_", "smp_")[:-1] + "1"],
        "name": ["posters-7", "report.json"],
        "status": ["succeeded", "failed", "paused", "queued", ["paused", "failed", "running"]],
        "base_model": ["flux-1-dev", "another"],
        "created_before": ["2026-01-01T00:00:00Z"],
        "created_after": ["2026-01-01T00:00:00Z"],
        "from_step": [2],
        "to_step": [2],
        "names": ["loss"],
        "max_points": [2],
        "kind": ["adapter"],
        "step": [0],
        "format": ["diffusers", "csv"],
        "metadata": ["ML-7"],
        "order": ["asc"],
        "after": [3],
        "limit": [3],
    }


def get_everything(large: Large) -> dict[str, int]:
    """Calls every operation that reads: plainly, with each of its parameters, from a later page. Returns the codes."""
    known, codes = values_of(large.rows), {}
    for path, operations in large.bench.client.get("/openapi.json").json()["paths"].items():
        if "get" not in operations or not path.startswith("/v1/"):
            continue
        named = [p["name"] for p in operations["get"].get("parameters", []) if p["in"] == "query"]
        for job in known["job_id"]:
            url = path.replace("{job_id}", job)
            for name, values in known.items():
                url = url.replace(f"{{{name}}}", str(values[-1]))
            if url.endswith("/events/stream") and job != known["job_id"][0]:
                continue  # It does not end.
            tries = [{}, *({_written(name): value} for name in named for value in known.get(name, ()))]
            answers = [large.bench.get(url, key=large.key, **query) for query in tries]
            cursor = answers[0].json().get("next_cursor") if "json" in answers[0].headers["content-type"] else None
            if cursor is not None and "cursor" in named:
                answers += [large.bench.get(url, key=large.key, cursor=cursor, **query) for query in tries]
            codes[path] = min(answers[0].status_code, codes.get(path, 999))
    return codes


def _written(name: str) -> str:
    return "metadata[ticket]" if name == "metadata" else name


def test_what_the_api_reads(large: Large) -> None:
    with listening() as heard:
        codes = get_everything(large)
        metrics_url = f"/v1/jobs/{large.rows.long}/metrics"
        for which in ({"order": "asc", "status": ["paused", "running"]}, {"metadata[team]": "posters"}):
            assert large.bench.get("/v1/jobs", key=large.key, **which).json()["data"]
        for query in ({}, {"names": "loss"}, {"format": "csv"}, {"limit": 10}, {"from_step": 2_400}):
            assert large.bench.get(metrics_url, key=large.key, **query).status_code == 200
    missing = [path for path, code in codes.items() if code != 200 and path.startswith("/v1/jobs")]
    assert all("file" in path or "image" in path or "artifacts/" in path for path in missing), (
        "their files do not exist"
    )
    large.check(heard)


def test_what_the_api_changes(large: Large) -> None:
    bench, rows, key = large.bench, large.rows, large.key
    ended = rows.ended[5].replace("job_", "ckpt_")
    with listening() as heard:
        made = bench.post("/v1/jobs", SPEC, key=key, Idempotency_Key="a").json()["id"]
        for path, body in {
            "/v1/jobs": SPEC,
            "/v1/jobs/validate": SPEC,
            f"/v1/jobs/{made}/pause": None,
            f"/v1/jobs/{made}/resume": None,
            f"/v1/jobs/{made}/cancel": None,
            f"/v1/jobs/{made}/retry": None,
            f"/v1/jobs/{rows.running[0]}/cancel": None,
            f"/v1/jobs/{rows.ended[5]}/checkpoints/{ended}/pin": None,
        }.items():
            assert bench.post(path, body, key=key, Idempotency_Key=path).status_code in (200, 201), path
        renamed = bench.client.patch(f"/v1/jobs/{made}", json={"name": "x"}, headers=bench.auth(key))
        assert renamed.status_code == 200
    large.check(heard)


def test_what_a_worker_and_the_reaper_do(large: Large) -> None:
    with large.bench.transaction() as session:  # A project with a limit is asked for more.
        limited = update(Project).values(max_concurrent_jobs=1_000, max_gpu_hours=1e6)
        session.execute(limited.where(Project.id == large.rows.projects[0]))
    with listening() as heard:
        with large.bench.transaction() as session:
            claim = leases.claim(session, "worker", LEASE, Pool("cpu", 1))
        assert claim is not None
        with large.bench.transaction() as session:
            leases.renew(session, claim.job_id, claim.epoch, LEASE)
            job = leases.guard(session, claim.job_id, claim.epoch)
            lifecycle.set_phase(session, job, "training")
            events.append_all(session, claim.job_id, [("log", {"n": 1})])
            metrics.upsert(session, claim.job_id, claim.epoch, {(1, name): 0.5 for name in METRIC_NAMES})
            leases.end_by_reason(session, job, reason(), RETRY)
        with large.bench.transaction() as session:
            leases.claim(session, "worker", LEASE, Pool("cpu", 1))
        with large.bench.transaction() as session:
            leases.reap(session, RETRY)
            limits.enforce(session, LEASE)
    large.check(heard)


def test_what_the_garbage_collector_asks_of_a_batch_of_jobs(large: Large) -> None:
    rules = garbage.Rules(grace=LEASE, states=timedelta(days=30), samples=timedelta(days=30))
    project = large.rows.projects[0]
    with listening() as heard:
        with large.bench.transaction() as session:
            first = garbage.jobs_of(session, project, after="", limit=50)
            batch = garbage.jobs_of(session, project, after=first[-1], limit=50)
            held = garbage.holdings(session, project, batch, rules)
        assert any(job.living for job in held.values())
        with large.bench.transaction() as session:
            keys = {f"projects/{project}/jobs/{n}/1/x": 1 for n in range(2_000)}
            assert garbage.mark(session, keys, rules.grace) == garbage.due_among(session, keys, rules.grace) == set()
            garbage.expire(session, batch, rules)
            garbage.note_purged(session, [batch[0].replace("job_", "ckpt_")])
            garbage.forget(session, keys)
    large.check(heard)


def test_what_maintenance_does(large: Large) -> None:
    services = large.bench.services
    stopping = threading.Event()
    context = Context(WorkerSettings(**large.bench.settings.model_dump()), services.sessions, services.store, stopping)
    with listening() as heard:
        for task in sorted(PERIODIC, key=lambda task: task.name == "webhooks"):
            if task.name == "webhooks":  # They are sent until then, and nothing else would come to its end.
                threading.Timer(2, stopping.set).start()
            task.run(context)
    assert len(heard.statements) > 10
    large.check(heard)


def test_a_query_that_no_index_serves_is_named(large: Large) -> None:
    with listening() as heard, large.bench.transaction() as session:
        for statement in (
            "SELECT id FROM jobs WHERE spec_digest = 'x'",
            "SELECT id FROM jobs WHERE status = 'queued' ORDER BY updated_at LIMIT 5",
            "SELECT id FROM jobs WHERE status = 'queued' AND project_id <> '' AND phase = 'x'",
        ):
            session.connection().exec_driver_sql(statement)
    wrong = [each.split(":")[0] for each in large.wrong_with(heard)]
    assert any("reads the whole of jobs" in each for each in wrong)
    assert any("sorts" in each for each in wrong)
    assert any("throws" in each for each in wrong)


def reason() -> Any:
    return {"code": "worker_lost", "message": "", "retryable": True, "actor": "system"}
