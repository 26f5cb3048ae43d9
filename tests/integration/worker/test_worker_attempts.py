"""One attempt after the other: what is published, how attempts end, and from where the next one goes on."""

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
from scripted_trainer import PNG
from sqlalchemy import func, update
from worker_bench import Bench, wait_for

from jobs import jobs
from jobs.db import transaction
from jobs.errors import ChecksumMismatch, ObjectMissing
from jobs.tables import Artifact, Checkpoint, Dataset, Sample
from worker.run_folder import sweep

UNBROKEN = b"x=21"  # 1 + 2 + … + 6: what an adapter holds that was trained without a break.


def test_a_job_runs_to_its_end_and_everything_is_published(bench: Bench) -> None:
    bench.script(samples=2)
    job_id = bench.submit()
    bench.run()
    job = bench.job(job_id)
    assert (job.status, job.phase, job.status_reason, job.attempt, job.epoch) == ("succeeded", "done", None, 1, 1)
    assert job.progress["step"] == job.progress["total_steps"] == 6
    assert (job.lease_owner, job.lease_expires_at) == (None, None)
    assert bench.statuses(job_id) == ["queued", "running", "succeeded"]
    assert bench.metrics(job_id) == {1: 0.1, 2: 0.3, 3: 0.6, 4: 1.0, 5: 1.5, 6: 2.1}
    assert [row.step for row in bench.checkpoints(job_id)] == [2, 4, 6]
    assert bench.adapter(job_id) == UNBROKEN
    assert len(bench.rows(Sample, job_id)) == len(bench.events(job_id, "sample")) == 12
    (report,) = bench.rows(Artifact, job_id)
    assert json.loads(bench.store.get(report.object_key).read())["x"] == 21
    (attempt,) = bench.attempts(job_id)
    assert (attempt.outcome, attempt.exit_code, attempt.last_step, attempt.reason) == ("succeeded", 0, 6, None)
    assert attempt.finished_at is not None
    assert not (bench.settings.work_dir / job_id / "1").exists(), "the run folder is removed after a success"


def test_object_keys_carry_project_job_and_epoch(bench: Bench) -> None:
    bench.script(samples=1, steps=1)
    job_id = bench.submit()
    bench.run()
    root = f"projects/{bench.job(job_id).project_id}/jobs/{job_id}/1"
    (sample,) = bench.rows(Sample, job_id)
    assert sample.object_key == f"{root}/samples/step-000001/000.png"
    assert bench.checkpoints(job_id, "adapter")[0].object_prefix == f"{root}/adapter"
    assert bench.rows(Artifact, job_id)[0].object_key == f"{root}/artifacts/report.json"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_trainer_is_resumed_from_its_last_committed_checkpoint(bench: Bench, number: signal.Signals) -> None:
    bench.script(attempts={"1": {"5": {"signal": number}}})
    job_id = bench.submit()
    bench.run(retry_seconds=1000)
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.phase, job.status_reason["retryable"]) == ("queued", "recovering", True)
    assert job.status_reason["code"] == {signal.SIGKILL: "trainer_killed", signal.SIGSEGV: "trainer_crashed"}[number]
    bench.end_back_off(job_id)
    bench.run()
    first, second = bench.attempts(job_id)
    assert (first.outcome, first.exit_code, second.resumed_from_step) == ("queued", -number, 4)
    assert bench.adapter(job_id) == UNBROKEN
    assert bench.metrics(job_id, "epoch_of_x") == {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2}
    assert bench.job(job_id).attempts_without_progress == 0


@pytest.mark.parametrize(
    ("code", "error", "expected"),
    [
        (65, {"code": "non_finite_loss", "message": "loss is nan at step 3", "retryable": False}, "non_finite_loss"),
        (69, {"code": "reward_failed", "message": "no such shape", "retryable": False}, "reward_failed"),
        (66, {"code": "model_unavailable", "message": "no weights", "retryable": False}, "model_unavailable"),
        (70, {"code": "internal", "message": "CUDA out of memory", "retryable": False}, "out_of_memory"),
    ],
)
def test_an_error_that_another_attempt_cannot_mend_fails_the_job(
    bench: Bench, code: int, error: dict[str, object], expected: str
) -> None:
    bench.script(attempts={"1": {"3": {"exit": code, "error": error, "stderr": "first\nlast words"}}})
    job_id = bench.submit()
    bench.run()
    job = bench.job(job_id)
    assert job.status == "failed"
    assert job.status_reason is not None
    assert job.status_reason["code"] == expected
    assert not job.status_reason["retryable"]
    assert str(error["message"]) in job.status_reason["message"]
    assert job.status_reason["message"].endswith("last words")
    assert any("last words" in event.data["message"] for event in bench.events(job_id, "log"))
    assert [row.step for row in bench.checkpoints(job_id)] == [2], "what was committed before stays"
    assert len(bench.trainers()) == 1


def test_three_attempts_without_a_new_checkpoint_fail_the_job_with_the_reason_of_the_last(bench: Bench) -> None:
    crash = {"1": {"exit": 1, "stderr": "boom"}}
    bench.script(attempts={"1": crash, "2": crash, "3": crash})
    job_id = bench.submit()
    runner = bench.runner()
    while bench.job(job_id).status not in ("failed", "succeeded"):
        runner.run_until_idle()
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.status_reason["code"], job.attempt) == ("failed", "internal", 3)
    assert [attempt.outcome for attempt in bench.attempts(job_id)] == ["queued", "queued", "failed"]


def test_a_failed_job_that_is_tried_again_goes_on_from_its_last_checkpoint(bench: Bench) -> None:
    error = {"code": "reward_failed", "message": "no such shape", "retryable": False}
    bench.script(attempts={"1": {"5": {"exit": 69, "error": error}}})
    job_id = bench.submit()
    bench.run()
    with transaction(bench.sessions) as session:
        jobs.retry(session, bench.job(job_id).project_id, job_id)
    bench.run()
    first, second = bench.attempts(job_id)
    assert (first.outcome, second.outcome, second.resumed_from_step) == ("failed", "succeeded", 4)
    assert bench.adapter(job_id) == UNBROKEN
    assert bench.job(job_id).finished_at is not None


def test_attempts_that_committed_a_checkpoint_are_not_counted(bench: Bench) -> None:
    kill = {"signal": int(signal.SIGKILL)}
    bench.script(steps=12, attempts={str(n): {str(2 * n + 1): kill} for n in range(1, 6)})
    job_id = bench.submit()
    runner = bench.runner()
    while bench.job(job_id).status not in ("failed", "succeeded"):
        runner.run_until_idle()
    assert bench.job(job_id).status == "succeeded"
    assert [attempt.resumed_from_step for attempt in bench.attempts(job_id)] == [None, 2, 4, 6, 8, 10]
    assert bench.adapter(job_id) == b"x=78"


def test_a_damaged_checkpoint_in_the_store_is_passed_over_for_the_one_before(bench: Bench) -> None:
    bench.script(attempts={"1": {"5": {"exit": 1}}})
    job_id = bench.submit()
    bench.run(retry_seconds=1000)
    newest = bench.checkpoints(job_id)[-1]
    bench.store.put_bytes(f"{newest.object_prefix}/state.txt", b"99 rotten")
    bench.end_back_off(job_id)
    bench.run()
    assert bench.attempts(job_id)[1].resumed_from_step == 2
    assert bench.adapter(job_id) == UNBROKEN
    assert any("step 4 cannot be used" in event.data["message"] for event in bench.events(job_id, "log"))


def test_a_checkpoint_that_is_not_what_its_sha256_says_is_never_committed(bench: Bench) -> None:
    bench.script(corrupt_checkpoint=4)
    job_id = bench.submit()
    bench.run()
    assert bench.job(job_id).status == "succeeded"
    assert [row.step for row in bench.checkpoints(job_id)] == [2, 6]
    assert any("step 4 was not kept" in event.data["message"] for event in bench.events(job_id, "log"))


def test_the_trainer_sees_the_training_spec_and_no_credentials(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, service_env: dict[str, str]
) -> None:
    for name, value in service_env.items():
        monkeypatch.setenv(name, value)
    bench.script(attempts={"1": {"1": {"exit": 65}}})
    job_id = bench.submit(name="my run")
    bench.run()
    (trainer,) = bench.trainers()
    assert {name for name in trainer["environ"] if name.startswith("EGRPO")} <= {"EGRPO_CACHE"}
    shown = json.dumps(trainer)
    for name in ("EGRPO_DATABASE_URL", "EGRPO_BROKER_URL", "EGRPO_S3_SECRET_KEY"):
        assert service_env[name] not in shown
    spec = json.loads((bench.settings.work_dir / job_id / "1" / "job.yaml").read_text())
    assert spec["name"] == "my run"
    assert not {"metadata", "resources", "limits"} & set(spec)


def test_lines_that_are_no_events_do_not_end_the_job(bench: Bench) -> None:
    bench.script(attempts={"1": {"2": {"raw": 'garbage\n{"type":"metric","step":2,"values":{"loss":NaN,"a":1}}'}}})
    job_id = bench.submit()
    bench.run()
    assert bench.job(job_id).status == "succeeded"
    assert bench.metrics(job_id, "a") == {2: 1.0}


def test_a_path_out_of_the_run_folder_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    raw = json.dumps({"type": "artifact", "path": "../../../secret"})
    bench.script(attempts={"1": {"2": {"raw": raw}}})
    job_id = bench.submit()
    bench.run()
    assert [artifact.name for artifact in bench.rows(Artifact, job_id)] == ["report.json"]
    assert any("leads out" in event.data["message"] for event in bench.events(job_id, "log"))


def test_a_manifest_that_the_trainer_does_not_list_is_kept_too(bench: Bench) -> None:
    bench.script(lists_manifest=False, attempts={"1": {"5": {"exit": 1}}})
    job_id = bench.submit()
    runner = bench.runner()
    while bench.job(job_id).status != "succeeded":
        runner.run_until_idle()
    assert {file["path"] for file in bench.checkpoints(job_id)[0].files} == {"state.txt", "manifest.json"}
    assert bench.attempts(job_id)[1].resumed_from_step == 4


def test_a_fault_in_taking_events_ends_the_attempt_instead_of_losing_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full and a checkpoint's files cannot be set aside."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    bench.script(steps=1000, step_seconds=0.02, checkpoint_every=1)
    job_id = bench.submit()
    with monkeypatch.context() as patch:
        patch.setattr("worker.files.os.link", full)
        patch.setattr("worker.files.shutil.copyfile", full)
        bench.run(retry_seconds=1000)
    job = bench.job(job_id)
    assert job.status == "queued"
    assert job.status_reason is not None
    assert "No space left" in job.status_reason["message"]


def test_the_store_keeps_the_last_and_the_best_states_and_nothing_of_the_others(bench: Bench) -> None:
    """The spec says keep_last 3 and keep_best 2; the scripted evaluation falls with the steps."""
    bench.script(steps=16, eval_rewards={str(step): -step for step in range(2, 17, 2)})
    job_id = bench.submit()
    bench.run()
    assert [row.step for row in bench.checkpoints(job_id)] == [2, 4, 12, 14, 16]
    gone = [row for row in bench.rows(Checkpoint, job_id) if row.deleted_at is not None]
    assert sorted(row.step for row in gone) == [6, 8, 10]
    for row in gone:
        for file in row.files:
            with pytest.raises(ObjectMissing):
                bench.store.stat(f"{row.object_prefix}/{file['path']}")


def test_a_pinned_state_outlives_the_later_ones(bench: Bench) -> None:
    bench.script(steps=12, attempts={"1": {"5": {"signal": signal.SIGKILL}}})
    job_id = bench.submit()
    bench.run(retry_seconds=1000)
    with transaction(bench.sessions) as session:
        session.execute(update(Checkpoint).where(Checkpoint.step == 2).values(pinned_at=func.now()))
    bench.end_back_off(job_id)
    bench.run()
    assert [row.step for row in bench.checkpoints(job_id)] == [2, 8, 10, 12]
    pinned = bench.checkpoints(job_id)[0]
    assert bench.store.stat(f"{pinned.object_prefix}/state.txt") > 0


def test_an_attempt_that_dies_after_its_export_leaves_no_second_adapter(bench: Bench) -> None:
    bench.script(attempts={"1": {"exported": {"signal": signal.SIGKILL}}})
    job_id = bench.submit()
    bench.run(retry_seconds=1000)
    assert bench.job(job_id).status == "queued"
    (first,) = bench.checkpoints(job_id, "adapter")
    bench.end_back_off(job_id)
    bench.run()
    assert bench.job(job_id).status == "succeeded"
    (second,) = bench.checkpoints(job_id, "adapter")
    assert (first.epoch, second.epoch) == (1, 2)
    assert bench.adapter(job_id) == UNBROKEN
    with pytest.raises(ObjectMissing):
        bench.store.stat(f"{first.object_prefix}/{first.files[0]['path']}")


def test_two_workers_on_one_machine_do_not_sweep_each_other(bench: Bench) -> None:
    bench.script(attempts={"1": {"3": {"waits": True}}})
    job_id = bench.submit()
    thread = bench.in_background(bench.runner())
    wait_for(lambda: bench.trainers())
    left = bench.settings.work_dir / "job_left" / "3"
    left.mkdir(parents=True)
    (left / ".held").touch()
    failed = bench.settings.work_dir / "job_failed" / "1"
    failed.mkdir(parents=True)
    sweep(bench.settings.work_dir)
    assert (bench.settings.work_dir / job_id / "1" / "job.yaml").exists()
    assert failed.exists()
    assert not left.parent.exists()
    bench.go_on()
    thread.join()
    assert bench.job(job_id).status == "succeeded"


def test_a_trainer_that_ends_well_without_an_adapter_has_not_succeeded(bench: Bench) -> None:
    bench.script(attempts={"1": {"5": {"exit": 0}}})
    job_id = bench.submit()
    bench.run(retry_seconds=1000)
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.status_reason["code"]) == ("queued", "internal")
    assert "without exporting an adapter" in job.status_reason["message"]


def test_a_checkpoint_is_named_after_all_that_was_told_before_it(bench: Bench) -> None:
    """A job resumes after its checkpoint: what a kill takes from before it, no later attempt tells again."""
    bench.script(steps=4, step_seconds=0.1, checkpoint_every=2, samples=1)
    job_id = bench.submit()
    bench.run(publish_seconds=0.5)
    told = [
        (event.type, event.data["step"]) for event in bench.events(job_id) if event.type in ("metric", "checkpoint")
    ]
    assert told.index(("checkpoint", 2)) > told.index(("metric", 2))
    assert told.index(("checkpoint", 4)) > told.index(("metric", 4))


def test_prompts_by_dataset_are_written_out_for_the_trainer(bench: Bench) -> None:
    prompts = ["a red circle", "a blue square"]
    bench.script(
        attempts={"1": {"3": {"exit": 66, "error": {"code": "model_unavailable", "message": "no"}}}}
    )  # The folder of a failed job stays.
    job_id = bench.submit_by_dataset(prompts)
    bench.run()
    folder = bench.settings.work_dir / job_id / "1"
    assert json.loads((folder / "job.yaml").read_text())["prompts"]["inline"] == prompts


def test_a_job_whose_dataset_is_gone_fails_and_says_so(bench: Bench) -> None:
    job_id = bench.submit_by_dataset(["a red circle"])
    with transaction(bench.sessions) as session:
        session.execute(update(Dataset).values(deleted_at=func.now()))
    bench.run()
    job = bench.job(job_id)
    assert job.status_reason is not None
    assert (job.status, job.status_reason["code"], job.status_reason["actor"]) == ("failed", "invalid_dataset", "user")
    assert bench.trainers() == []


def test_a_worker_without_room_takes_no_job(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    job_id = bench.submit()
    bench.run(min_free_bytes=2**62)
    assert (bench.job(job_id).status, bench.job(job_id).attempt) == ("queued", 0)
    assert "event=no_room" in caplog.text


def test_a_trainer_that_fails_on_a_full_disk_is_not_at_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.script(attempts={"1": {"3": {"exit": 1, "stderr": "OSError: [Errno 28] No space left on device"}}})
    job_id = bench.submit()
    monkeypatch.setattr("worker.supervisor.free_bytes", lambda work_dir: 4096)
    bench.run()
    reason = bench.attempts(job_id)[0].reason
    assert reason is not None
    assert reason["code"] == "worker_failed"  # Which keeps the job from this worker while there is another.
    assert "the worker's disk is full (4096 bytes are free)" in reason["message"]


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_left_out_and_the_attempt_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def pruned(source: Path, target: Path) -> None:
        if "step-000002" in str(source):
            source.unlink()
        link(source, target)

    monkeypatch.setattr("worker.files.os.link", pruned)
    bench.script()
    job_id = bench.submit()
    bench.run()
    assert (bench.job(job_id).status, bench.job(job_id).attempt) == ("succeeded", 1)
    assert bench.committed(job_id) == [4, 6]
    assert "checkpoints/step-000002 of step 2 was not kept" in bench.events(job_id, "log")[0].data["message"]


def test_a_state_without_its_manifest_is_no_checkpoint(bench: Bench) -> None:
    told = {"type": "checkpoint", "step": 3, "kind": "state", "path": "samples/step-000003"}
    file = {"path": "000.png", "sha256": hashlib.sha256(PNG).hexdigest(), "size_bytes": len(PNG)}
    bench.script(samples=1, attempts={"1": {"3": {"raw": json.dumps({**told, "files": [file]})}}})
    job_id = bench.submit()
    bench.run()
    assert (bench.job(job_id).status, bench.committed(job_id)) == ("succeeded", [2, 4, 6])


def test_a_checkpoint_that_arrives_damaged_is_fetched_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    download = bench.store.download
    arrivals: list[str] = []

    def damaged_at_first(key: str, path: Path, *, sha256: str) -> None:
        arrivals.append(key)
        if len(arrivals) <= 2:
            raise ChecksumMismatch(f"{key}: half of it is missing")
        download(key, path, sha256=sha256)

    monkeypatch.setattr(bench.store, "download", damaged_at_first)
    bench.script(attempts={"1": {"5": {"signal": signal.SIGKILL}}})
    job_id = bench.submit()
    bench.run()
    bench.end_back_off(job_id)
    bench.run()
    assert (bench.job(job_id).status, bench.adapter(job_id)) == ("succeeded", UNBROKEN)
    assert bench.attempts(job_id)[1].resumed_from_step == 4
