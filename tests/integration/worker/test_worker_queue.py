"""Who is next: pools, priority classes, fair share, age, and the limits of projects, also when many claim at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update
from worker_bench import Bench

from jobs import leases, queue
from jobs.db import make_engine, make_session_factory, transaction
from jobs.leases import CPU, Claim
from jobs.queue import Pool
from jobs.retries import Retry
from jobs.states import Status
from jobs.tables import Attempt, GPUTime, Job, Project

LEASE = timedelta(seconds=60)
H100 = Pool("h100", 2)


def claim(bench: Bench, pool: Pool = CPU) -> Claim | None:
    with transaction(bench.sessions) as session:
        return leases.claim(session, "w", LEASE, pool)


def claimed_ids(bench: Bench, count: int, pool: Pool = CPU) -> list[str]:
    given = [claim(bench, pool) for _ in range(count)]
    return [each.job_id for each in given if each is not None]


def limit(bench: Bench, project: str, **limits: float) -> None:
    with transaction(bench.sessions) as session:
        session.execute(update(Project).where(Project.name == project).values(**limits))


def end(bench: Bench, given: Claim, *, lasted: timedelta) -> None:
    """Ends an attempt as if it had begun that long ago."""
    with transaction(bench.sessions) as session:
        job = leases.guard(session, given.job_id, given.epoch)
        began = func.clock_timestamp() - lasted
        session.execute(update(Attempt).where(Attempt.id == given.attempt_id).values(started_at=began))
        leases.end(session, job, Status.SUCCEEDED, None, phase="done")


def test_a_worker_takes_jobs_of_its_pool_that_fit_it(bench: Bench) -> None:
    other = bench.submit(resources={"gpu_type": "a100"})
    wide = bench.submit(resources={"gpu_type": "h100", "gpus": 4})
    mine = bench.submit(resources={"gpu_type": "h100", "gpus": 2})
    any_type = bench.submit(resources={"gpus": 1})
    none = bench.submit(resources={"gpus": 0})
    assert claimed_ids(bench, 3, H100) == [mine, any_type, none]
    assert claim(bench) is None
    assert claimed_ids(bench, 1, Pool("h100", 8)) == [wide]
    assert claimed_ids(bench, 1, Pool("a100", 1)) == [other]
    (attempt,) = bench.attempts(mine)
    assert (attempt.gpu_type, attempt.num_gpus) == ("h100", 2)


def test_the_class_comes_before_the_share_and_the_age(bench: Bench) -> None:
    low = bench.submit(priority="low")
    normal = [bench.submit(), bench.submit("idle")]
    high = [bench.submit(priority="high") for _ in range(2)]
    assert claimed_ids(bench, 5) == [*high, normal[1], normal[0], low]


def test_the_share_is_counted_in_gpus(bench: Bench) -> None:
    wide = bench.submit("wide", resources={"gpus": 2})
    narrow = bench.submit("narrow")
    assert claimed_ids(bench, 2, H100) == [wide, narrow]
    later = [bench.submit("wide"), bench.submit("narrow")]
    assert claimed_ids(bench, 2, H100) == [later[1], later[0]]


def test_a_project_at_its_limit_of_concurrent_jobs_waits_and_holds_up_nobody(bench: Bench) -> None:
    limited = [bench.submit("limited", priority="high") for _ in range(3)]
    limit(bench, "limited", max_concurrent_jobs=1)
    free = bench.submit("free")
    first = claim(bench)
    assert first is not None
    assert (first.job_id, claimed_ids(bench, 2)) == (limited[0], [free])
    end(bench, first, lasted=timedelta(0))
    assert claimed_ids(bench, 2) == [limited[1]]


def test_the_limit_of_concurrent_jobs_holds_when_twelve_workers_claim_at_once(bench: Bench) -> None:
    for _ in range(12):
        bench.submit("limited")
        bench.submit("free")
    limit(bench, "limited", max_concurrent_jobs=3)
    engine = make_engine(bench.settings.model_copy(update={"database_pool_size": 12}))
    bench.engines.append(engine)
    sessions = make_session_factory(engine)

    def claim_all(_: int) -> None:
        for _ in range(3):
            with transaction(sessions) as session:
                leases.claim(session, "w", LEASE)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(claim_all, range(12)))
    while claim(bench) is not None:  # What nobody took because somebody who was slow had it locked meanwhile.
        pass
    with transaction(bench.sessions) as session:
        statement = select(Project.name, func.count(), func.count(Job.lease_owner)).join(Job).group_by(Project.name)
        counts = {name: (all_, held) for name, all_, held in session.execute(statement)}
    assert counts == {"limited": (12, 3), "free": (12, 12)}


def test_a_project_that_is_being_claimed_from_is_passed_over(bench: Bench) -> None:
    bench.submit("limited")
    limit(bench, "limited", max_concurrent_jobs=5)
    free = bench.submit("free")
    with transaction(bench.sessions) as slow:
        leases.claim(slow, "slow", LEASE)
        bench.submit("limited")
        assert claimed_ids(bench, 2) == [free]
    assert len(claimed_ids(bench, 2)) == 1


def test_gpu_hours_of_the_month_are_those_of_ended_and_of_running_attempts(bench: Bench) -> None:
    """On two GPUs, with hours for 1.5 units of time: of 20 minutes, or less where the month is younger than that."""
    with transaction(bench.sessions) as session:
        month = session.scalars(text("SELECT date_trunc('month', clock_timestamp(), 'UTC')")).one()
        unit = min(timedelta(minutes=20), (session.scalars(select(func.clock_timestamp())).one() - month) / 2)
    for _ in range(3):
        bench.submit("paying", resources={"gpus": 2})
    limit(bench, "paying", max_gpu_hours=3 * unit / timedelta(hours=1))
    first = claim(bench, H100)
    assert first is not None
    end(bench, first, lasted=unit)
    second = claim(bench, H100)
    assert second is not None
    assert bench.job(first.job_id).gpu_seconds == pytest.approx(2 * unit.total_seconds(), abs=120)
    with transaction(bench.sessions) as session:
        began = func.clock_timestamp() - 0.55 * unit
        session.execute(update(Attempt).where(Attempt.id == second.attempt_id).values(started_at=began))
    assert claim(bench, H100) is None
    limit(bench, "paying", max_gpu_hours=6 * unit / timedelta(hours=1))
    assert claim(bench, H100) is not None


def test_last_months_gpu_hours_do_not_count(bench: Bench) -> None:
    job_id = bench.submit("paying")
    limit(bench, "paying", max_gpu_hours=1.0)
    with transaction(bench.sessions) as session:
        project_id = session.get_one(Job, job_id).project_id
        used = {"project_id": project_id, "gpu_type": "h100", "gpu_seconds": 1e6}
        session.add(GPUTime(**used, day=datetime(2020, 1, 1, tzinfo=UTC)))
    assert claimed_ids(bench, 1) == [job_id]


def test_a_lost_worker_is_charged_until_its_lease_ran_out(bench: Bench) -> None:
    job_id = bench.submit()
    assert claim(bench) is not None
    with transaction(bench.sessions) as session:
        now = session.scalars(select(func.clock_timestamp())).one()
        session.execute(update(Attempt).values(started_at=now - timedelta(hours=2)))
        session.execute(update(Job).values(lease_expires_at=now - timedelta(hours=1)))
    with transaction(bench.sessions) as session:
        leases.reap(session, Retry(timedelta(seconds=1)))
    assert bench.job(job_id).gpu_seconds == pytest.approx(3600, abs=0.01)
    assert bench.attempts(job_id)[0].finished_at == now - timedelta(hours=1)


def test_the_claim_reads_lanes_by_index_however_long_the_queue_is(bench: Bench) -> None:
    job_id = bench.submit()
    fill = """
        INSERT INTO jobs (id, project_id, name, spec, spec_digest, base_model, progress)
        SELECT 'job_z' || lpad(n::text, 8, '0'), project_id, name, spec, spec_digest, base_model, progress
        FROM jobs, generate_series(1, 3000) n WHERE id = :id
    """
    with transaction(bench.sessions) as session:
        session.execute(text(fill), {"id": job_id})
        session.execute(text("ANALYZE jobs"))
        lanes = session.execute(text("EXPLAIN " + str(queue._LANES)), {"gpu_type": "cpu", "num_gpus": 1, "owner": "w"})
        plan = "\n".join(lanes.scalars())
    assert plan.count("ix_jobs_lanes") >= 3, plan
    assert "Seq Scan on jobs" not in plan, plan
    assert claimed_ids(bench, 1) == [job_id]
