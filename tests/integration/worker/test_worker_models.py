"""A worker's model cache while jobs come and go."""

from pathlib import Path

import pytest
from worker_bench import Bench, wait_for

from worker.model_cache import ModelCache

COMMIT = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"


def test_the_model_of_a_running_job_stays_and_goes_when_it_has_ended(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    home = cache / "models--black-forest-labs--FLUX.1-dev"
    (home / "snapshots" / COMMIT).mkdir(parents=True)
    (home / "snapshots" / COMMIT / "model.safetensors").write_bytes(bytes(2000))
    monkeypatch.setattr("worker.model_cache.HF_HUB_CACHE", str(cache))
    bench.script(attempts={"1": {"3": {"waits": True}}})
    job_id = bench.submit(base_model="flux-1-dev")
    thread = bench.in_background(bench.runner(model_cache_gb=1e-6))
    wait_for(bench.trainers)
    with ModelCache(cache, 1000).used(None):  # Another worker of the machine tidies up.
        assert home.exists()
    bench.go_on()
    thread.join()
    assert bench.job(job_id).status == "succeeded"
    assert not home.exists()
