"""`python -m worker` as a process: hints, a broker that is away, and an orderly end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from worker_bench import Bench, Start, wait_for

from api.hints import Hints
from egrpo_client.stack import valkey
from egrpo_client.stack.ports import free_ports
from egrpo_client.stack.processes import ServerProcess

NEVER = "1000"
LONG = {"steps": 4000, "step_seconds": 0.02, "checkpoint_every": 10_000}


def stop(worker: subprocess.Popen[bytes]) -> int:
    worker.send_signal(signal.SIGTERM)
    return worker.wait(timeout=60)


def test_a_hint_wakes_a_worker_and_sigterm_ends_the_task_it_runs(
    bench: Bench, start: Start, service_env: dict[str, str]
) -> None:
    """The task runs in Celery's main thread, where the signal arrives."""
    bench.script(**LONG)
    worker = start(EGRPO_POLL_SECONDS=NEVER)
    hints = Hints(service_env["EGRPO_BROKER_URL"])
    wait_for(lambda: "listening_for_hints" in bench.log_of("worker.log"))
    job_id = bench.submit()
    hints.send()
    hints.close()
    wait_for(lambda: bench.job(job_id).progress["step"] >= 3)
    assert stop(worker) == 0
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.status_reason["code"]) == ("queued", "preempted")
    assert bench.checkpoints(job_id)[0].step == bench.attempts(job_id)[0].last_step


def test_without_a_broker_jobs_run_all_the_same_and_sigterm_is_obeyed(bench: Bench, start: Start) -> None:
    (port,) = free_ports(1)
    worker = start(EGRPO_BROKER_URL=f"redis://127.0.0.1:{port}/0")
    job_id = bench.submit()
    wait_for(lambda: bench.job(job_id).status == "succeeded")
    bench.script(**LONG)
    second = bench.submit()
    wait_for(lambda: bench.job(second).progress["step"] >= 3)
    assert stop(worker) == 0
    assert bench.job(second).status == "queued"


def test_a_worker_outlives_its_broker_and_hears_the_next_one(bench: Bench, start: Start, tmp_path: Path) -> None:
    (port,) = free_ports(1)

    def broker() -> ServerProcess:
        process = valkey.start(tmp_path / "valkey", port, "secret", tmp_path / "valkey.log")
        valkey.wait_ready(process, port)
        return process

    first = broker()
    worker = start(EGRPO_BROKER_URL=valkey.url(port, "secret"), EGRPO_POLL_SECONDS=NEVER)
    wait_for(lambda: "listening_for_hints" in bench.log_of("worker.log"))
    first.stop(grace_s=0)
    with broker():
        job_id = bench.submit()
        hints = Hints(valkey.url(port, "secret"))
        hints.send()
        hints.close()
        wait_for(lambda: bench.job(job_id).status == "succeeded")
        assert stop(worker) == 0


def test_a_job_of_a_killed_worker_is_finished_by_another(bench: Bench, start: Start) -> None:
    bench.script(steps=60, attempts={"1": {"5": {"hang": True}}})
    victim = start(EGRPO_WORKER_NAME="victim")
    job_id = bench.submit()
    wait_for(lambda: bench.committed(job_id) == [2, 4])
    victim.kill()
    victim.wait()
    bench.end_lease(job_id)
    start(EGRPO_WORKER_NAME="heir")
    wait_for(lambda: bench.job(job_id).status == "succeeded")
    first, second = bench.attempts(job_id)
    assert (first.worker, second.worker) == ("victim", "heir")
    assert first.reason is not None
    assert first.reason["code"] == "worker_lost"
    assert second.resumed_from_step == 4
    assert bench.adapter(job_id) == b"x=1830"


def test_a_worker_without_its_settings_names_them_and_refuses_to_start() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "worker"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    for name in ("EGRPO_DATABASE_URL", "EGRPO_BROKER_URL", "EGRPO_S3_SECRET_KEY"):
        assert f"{name} is not set" in run.stderr
    assert "Traceback" not in run.stderr
