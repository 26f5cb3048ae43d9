"""From POST to an adapter that stock diffusers loads, and what survives on the way."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import redis
from PIL import Image
from service_processes import SPEC, Service, wait_for, with_steps

from egrpo import catalogue

STEPS = SPEC["training"]["steps"]


def test_a_job_becomes_an_adapter_with_which_diffusers_draws_the_trainers_own_images(
    service: Service, tmp_path: Path
) -> None:
    job_id = service.submit(SPEC)
    assert service.job(job_id)["status"] == "queued"
    with redis.Redis.from_url(service.env["EGRPO_BROKER_URL"]) as broker:
        wait_for(lambda: broker.llen("gpu") == 1)  # It is sent behind the answer.
        broker.flushall()  # The hint is gone; the job is not.
    service.worker()
    job = service.wait_for_status(job_id, "succeeded", "failed")
    assert job["status"] == "succeeded", service.told(job_id)
    assert (job["phase"], job["attempt"], job["progress"]["step"]) == ("done", 1, STEPS)
    metrics = service.get(f"/v1/jobs/{job_id}/metrics?names=reward_mean")["data"]
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    samples = [row for row in service.listed(job_id, "samples") if row["step"] == STEPS]
    assert {sample["kind"] for sample in samples} == {"evaluation", "best", "worst"}
    for kind in ("best", "worst"):
        (first, *_) = service.get(f"/v1/jobs/{job_id}/samples?kind={kind}&step={STEPS}")["data"]
        assert first == next(sample for sample in samples if sample["kind"] == kind)
    grid = service.get(f"/v1/jobs/{job_id}/samples?kind=evaluation&prompt_index=1")["data"]
    assert len({(row["prompt"], row["seed"]) for row in grid}) == 1
    assert [row["step"] for row in grid] == sorted({row["step"] for row in service.listed(job_id, "samples")})
    lines = service.get(f"/v1/jobs/{job_id}/logs?limit=200")["data"]
    assert any("trained parameters" in line["message"] for line in lines if line["source"] == "trainer")
    assert (lines[0]["number"], lines[-1]["message"]) == (1, "event=attempt_succeeded")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").write_bytes(service.adapter(job_id))
    drawn = draw(folder, samples)
    for sample, image in zip(samples, drawn, strict=True):
        assert np.array_equal(image, png(service, job_id, sample))
    report = service.http.get(f"/v1/jobs/{job_id}/artifacts/report.json").json()
    assert report["steps"] == STEPS
    assert len(report["curve"]) == 1 + STEPS // SPEC["evaluation"]["every_steps"]


def png(service: Service, job_id: str, sample: dict[str, Any]) -> np.ndarray[Any, Any]:
    image = service.http.get(f"/v1/jobs/{job_id}/samples/{sample['id']}/image")
    assert image.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(image.content)))


def draw(adapter: Path, samples: list[dict[str, Any]]) -> list[np.ndarray[Any, Any]]:
    """Draws the samples as any user of diffusers would."""
    import torch
    from diffusers import FluxPipeline

    torch.set_num_threads(1)
    pipeline = FluxPipeline.from_pretrained(catalogue.MODELS["tiny-flux-shapes"].folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(adapter)
    images = []
    for sample in samples:
        image = pipeline(
            sample["prompt"],
            height=64,
            width=64,
            num_inference_steps=SPEC["method"]["sampling_steps"],
            guidance_scale=3.5,
            max_sequence_length=pipeline.tokenizer_2.model_max_length,
            generator=torch.Generator().manual_seed(sample["seed"]),
        ).images[0]
        images.append(np.asarray(image))
    return images


def test_a_job_outlives_its_trainer_its_worker_and_a_shutdown_and_ends_as_if_nothing_had_been(
    service: Service, tmp_path: Path
) -> None:
    """Attempt 1 loses its trainer to `kill -9`, 2 its worker, 3 is shut down, 4 ends as the bare trainer, unbroken."""
    # Whoever strikes may be kept from a core for some seconds, in which the trainer must not come to its end.
    spec = with_steps(150)
    with service.bare_trainer(spec, tmp_path / "unbroken") as unbroken:
        first = service.worker(EGRPO_LEASE_SECONDS="6")  # It will be killed; so long nobody else may take its job.
        job_id = service.submit(spec)
        service.wait_for_checkpoint(job_id, 5)
        first.trainer().kill()
        wait_for(lambda: resumed_in(service, job_id) == [2])  # A worker that is killed takes the end of its log along.

        service.wait_for_checkpoint(job_id, 20)
        orphan = first.trainer()
        first.kill()
        wait_for(lambda: is_zombie(orphan))

        second = service.worker()
        service.wait_for_checkpoint(job_id, 35)
        assert second.stop() == 0
        job = service.job(job_id)
        assert (job["status"], job["status_reason"]["code"]) == ("queued", "preempted")

        service.worker()
        job = service.wait_for_status(job_id, "succeeded", "failed")
        assert (job["status"], job["attempt"]) == ("succeeded", 4), service.told(job_id)
        assert unbroken.wait() == 0
    expected = tmp_path / "unbroken" / "adapter" / "pytorch_lora_weights.safetensors"
    assert service.adapter(job_id) == expected.read_bytes()
    assert resumed_in(service, job_id) == [2, 3, 4], "the log goes on through every kind of end"
    rows = service.get(f"/v1/jobs/{job_id}/metrics?names=reward_mean&limit=200")["data"]
    assert [(row["step"], row["value"]) for row in rows] == reward_means(tmp_path / "unbroken" / "metrics.ndjson")


def log_of(service: Service, job_id: str) -> list[dict[str, Any]]:
    """Returns all lines of a job's log; their numbers have no gap, though a kill may have taken the last ones said."""
    lines: list[dict[str, Any]] = []
    path = page = f"/v1/jobs/{job_id}/logs"
    while (found := service.get(page))["data"]:
        lines += found["data"]
        page = f"{path}?cursor={found['next_cursor']}"
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
    return lines


def resumed_in(service: Service, job_id: str) -> list[int]:
    """Returns the attempts that, by the log, went on from a checkpoint."""
    return [line["attempt"] for line in log_of(service, job_id) if "resumed at step" in line["message"]]


def reward_means(path: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["step"], row["values"]["reward_mean"]) for row in rows if "reward_mean" in row["values"]]


def test_cancel_stops_a_running_job_soon_and_keeps_its_last_step(service: Service) -> None:
    worker = service.worker()
    job_id = service.submit(with_steps(5000))
    service.wait_for_checkpoint(job_id, 5)
    assert service.http.post(f"/v1/jobs/{job_id}/cancel").status_code in (200, 202)
    job = service.wait_for_status(job_id, "cancelled", seconds=60)
    assert job["status_reason"]["code"] == "cancelled_by_user"
    kept = max(row["step"] for row in service.listed(job_id, "checkpoints"))
    assert kept == job["progress"]["step"]
    wait_for(lambda: psutil_children(worker.process.pid) == [])


def psutil_children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children() if not is_zombie(child)]


def is_zombie(process: psutil.Process) -> bool:
    """Returns whether a process has ended, as one that is gone altogether has."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_two_processes_train_what_one_trains(service: Service) -> None:
    """The real launcher and trainer on two GPUs, which are CPU processes here."""
    wide = {**SPEC, "training": {**SPEC["training"], "steps": 2, "prompts_per_update": 2}}
    wide |= {"evaluation": {"every_steps": 2, "prompts": 2, "images_per_prompt": 1}}
    service.worker(EGRPO_NUM_GPUS="2")
    jobs = [service.submit({**wide, "resources": {"gpus": gpus}}) for gpus in (2, 1)]
    for job_id in jobs:
        assert service.wait_for_status(job_id, "succeeded", "failed")["status"] == "succeeded", service.told(job_id)
    said = [" ".join(line["message"] for line in log_of(service, job_id)) for job_id in jobs]
    assert ["shared by 2 processes" in text for text in said] == [True, False]
    two, one = [
        {
            (row["step"], row["name"]): row["value"]
            for row in service.get(f"/v1/jobs/{job_id}/metrics?names=reward_mean&names=grad_norm")["data"]
        }
        for job_id in jobs
    ]
    assert two.keys() == one.keys()
    assert {step for step, _ in two} == {1, 2}
    assert two == pytest.approx(one, rel=1e-2)
