"""A job on several GPUs: `accelerate launch` with a process for each, here on a CPU."""

import signal

import psutil
from worker_bench import Bench, is_alive, wait_for

LONG = {"steps": 2000, "step_seconds": 0.05, "checkpoint_every": 2}


def ranks(bench: Bench, count: int) -> list[psutil.Process]:
    """Returns the processes of the attempt that runs, when its trainer has begun."""
    wait_for(lambda: len(bench.trainers()) == count, seconds=120)
    launcher = psutil.Process(bench.trainers()[-1]["launcher"])
    wait_for(lambda: len(launcher.children()) >= 2)  # It starts one after the other.
    return [launcher, *launcher.children()]


def test_a_rank_that_dies_ends_the_attempt_and_a_pause_stops_all_ranks_with_a_checkpoint(bench: Bench) -> None:
    bench.script(**LONG, second_rank={"1": int(signal.SIGKILL)})
    job_id = bench.submit(resources={"gpus": 2})
    narrow = bench.runner("narrow")
    narrow.run_until_idle()
    assert bench.job(job_id).attempt == 0, "it has one GPU"
    runner = bench.runner("wide", num_gpus=2)
    runner.start()
    wait_for(lambda: len(bench.attempts(job_id)) == 2, seconds=120)
    (first, _) = bench.attempts(job_id)
    assert first.reason is not None
    assert (first.reason["code"], first.exit_code, first.num_gpus) == ("trainer_killed", -9, 2)
    processes = ranks(bench, 2)
    assert len(processes) == 3
    assert bench.trainers()[1]["environ"]["WORLD_SIZE"] == "2"
    wait_for(lambda: bench.job(job_id).progress["step"] > (first.last_step or 0))
    runner.drain()
    runner.join()
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.status_reason["code"]) == ("queued", "preempted")
    assert bench.committed(job_id)[-1] == job.progress["step"]
    wait_for(lambda: not any(is_alive(process.pid) for process in processes))
    assert bench.attempts(job_id)[1].resumed_from_step
