"""What leaves the store, and when: exactly what no row names and nobody can name any more, after its grace period."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from minio.deleteobjects import DeleteError, DeleteObject, DeleteResult
from sqlalchemy import func, select, update
from worker_bench import Bench, wait_for

from jobs import api_keys, checkpoints, jobs
from jobs.db import transaction
from jobs.tables import Artifact, Checkpoint, Garbage, Job, Sample
from worker.garbage import Report, collect

HOUR = 3600.0


class Store:
    """The bench's bucket, and the collector at it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def content(self) -> set[str]:
        return {found.key for found in self.bench.store.objects("")}

    def collect(self, *, dry_run: bool = False, **settings: Any) -> Report:
        changed = self.bench.settings.model_copy(update={"gc_grace_seconds": HOUR, **settings})
        return collect(self.bench.sessions, self.bench.store, changed, dry_run=dry_run)

    def age(self, column: Any, hours: float = 2) -> None:
        """Makes all moments of a column earlier."""
        with transaction(self.bench.sessions) as session:
            session.execute(update(column.class_).values({column: column - timedelta(hours=hours)}))

    def marks(self) -> set[str]:
        with transaction(self.bench.sessions) as session:
            return set(session.scalars(select(Garbage.object_key)))

    def put(self, *keys: str) -> set[str]:
        for key in keys:
            self.bench.store.put_bytes(key, b"1234")
        return set(keys)


@pytest.fixture
def store(bench: Bench) -> Store:
    return Store(bench)


def test_exactly_the_orphans_go_and_not_before_their_time(bench: Bench, store: Store) -> None:
    """A job that was killed once, so that its first attempt's samples were drawn again; and what such kills leave."""
    bench.script(samples=1, attempts={"1": {"5": {"signal": signal.SIGKILL}}})
    job_id = bench.submit()
    bench.run(retry_seconds=1000)
    bench.end_back_off(job_id)
    bench.run()
    job = bench.job(job_id)
    with transaction(bench.sessions) as session:
        other = api_keys.project_named(session, "other")
    prefix = f"projects/{job.project_id}/jobs"
    living = store.content()
    orphans = store.put(
        f"{prefix}/{job_id}/1/checkpoints/step-000006/state.txt",
        f"{prefix}/{job_id}/2/samples/step-000099/000.png",
        f"{prefix}/job_000000000000000000000000aa/1/adapter/x",
        f"projects/{other}/jobs/{job_id}/1/é b.bin",
    )
    left = store.put(f"{prefix}/{job_id}/notes.txt", "projects/prj_unknown/jobs/job_x/1/adapter/x", "elsewhere/x")
    orphans.add(f"{prefix}/{job_id}/1/samples/step-000005/000.png")  # Drawn again by the second attempt.

    planned = store.collect(dry_run=True)
    assert (planned.orphans, planned.removed, planned.foreign) == (len(orphans), 0, ["prj_unknown"])
    assert store.marks() == set(), "a dry run changes nothing"
    assert store.collect().removed == 0
    assert store.marks() == orphans
    assert store.content() == living | orphans | left
    store.age(Garbage.found_at)
    assert store.collect(dry_run=True).removed == len(orphans)
    assert store.content() == living | orphans | left
    done = store.collect()
    assert (done.removed, done.missing, done.finished) == (len(orphans), [], True)
    assert store.content() == living - orphans | left
    assert store.marks() == set()
    assert store.collect().orphans == 0


def test_what_a_running_attempt_has_uploaded_is_not_touched(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher is held between the upload of a checkpoint and the row that names it, while the collector runs."""
    uploaded, go_on = threading.Event(), threading.Event()
    add: Callable[..., str] = checkpoints.add

    def held(*arguments: Any, **fields: Any) -> str:
        uploaded.set()
        assert go_on.wait(60)
        return add(*arguments, **fields)

    monkeypatch.setattr("worker.files.checkpoints.add", held)
    job_id = bench.submit()
    thread = bench.in_background(bench.runner())
    assert uploaded.wait(60)
    before = store.content()
    assert before
    rounds = [store.collect(gc_grace_seconds=0.0) for _ in range(2)]
    assert [found.orphans for found in rounds] == [0, 0]
    go_on.set()
    thread.join()
    assert bench.job(job_id).status == "succeeded"
    assert before <= store.content()
    assert store.collect().missing == []


def test_uploads_in_parts_that_were_cut_off_are_given_up(bench: Bench, store: Store) -> None:
    bench.script(attempts={"1": {"1": {"waits": True}}})
    job_id = bench.submit()
    thread = bench.in_background(runner := bench.runner())
    wait_for(lambda: bench.job(job_id).lease_owner)
    prefix = f"projects/{bench.job(job_id).project_id}/jobs/{job_id}"
    for key in (f"{prefix}/0/checkpoints/a b.bin", f"{prefix}/1/checkpoints/b.bin", "projects/prj_unknown/x"):
        bench.store._client._create_multipart_upload(bench.store.bucket, key, {})
    assert store.collect().uploads == 1
    assert store.collect().uploads_aborted == 0
    store.age(Garbage.found_at)
    assert store.collect(dry_run=True).uploads_aborted == 1
    assert len(bench.store.unfinished_uploads("")) == 3
    assert store.collect().uploads_aborted == 1
    left = {upload.key for upload in bench.store.unfinished_uploads("")}
    assert left == {f"{prefix}/1/checkpoints/b.bin", "projects/prj_unknown/x"}
    runner.drain()
    thread.join()


def test_a_deleted_checkpoint_leaves_its_files_for_a_while(bench: Bench, store: Store) -> None:
    job_id = bench.submit()
    bench.run()
    first, *_ = bench.checkpoints(job_id)
    files = {f"{first.object_prefix}/{file['path']}" for file in first.files}
    with transaction(bench.sessions) as session:
        project_id = bench.job(job_id).project_id
        checkpoints.delete(session, jobs.get(session, project_id, job_id, lock=True), first.id)
    assert store.collect().checkpoints_purged == 0
    assert files < store.content()
    assert store.marks() == set(), "they are no orphans"
    store.age(Checkpoint.deleted_at)
    everything = store.content()
    assert store.collect(dry_run=True).checkpoints_purged == 1
    assert store.content() == everything
    purged = store.collect()
    assert (purged.checkpoints_purged, purged.removed_bytes) == (1, first.size_bytes)
    assert store.content() == everything - files
    assert store.collect().checkpoints_purged == 0, "that is done once"


def test_a_file_of_a_deleted_checkpoint_that_something_else_names_stays(bench: Bench, store: Store) -> None:
    job_id = bench.submit()
    bench.run()
    job, (first, *_) = bench.job(job_id), bench.checkpoints(job_id)
    files = {f"{first.object_prefix}/{file['path']}" for file in first.files}
    shared = min(files)
    with transaction(bench.sessions) as session:
        checkpoints.delete(session, jobs.get(session, job.project_id, job_id, lock=True), first.id)
        session.execute(update(Artifact).where(Artifact.job_id == job_id).values(object_key=shared))
    assert store.collect(gc_grace_seconds=0.0).checkpoints_purged == 1
    assert store.content() & files == {shared}


def test_what_the_store_refuses_to_remove_is_kept_account_of_and_tried_again(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that locks objects refuses some of a request; SeaweedFS refuses none, so its answer is added to."""
    job_id = bench.submit()
    bench.run()
    job, (first, second, _) = bench.job(job_id), bench.checkpoints(job_id)
    with transaction(bench.sessions) as session:
        for each in (first, second):
            checkpoints.delete(session, jobs.get(session, job.project_id, job_id, lock=True), each.id)
    prefix = f"projects/{job.project_id}/jobs/job_gone/1"
    store.put(f"{prefix}/a", f"{prefix}/b")
    locked = {f"{prefix}/a", f"{first.object_prefix}/{first.files[0]['path']}"}
    delete = bench.store._client._delete_objects

    def partly(bucket: str, wanted: list[DeleteObject], **options: Any) -> DeleteResult:
        free = [each for each in wanted if each.name not in locked]
        errors = [DeleteError("AccessDenied", None, key, None) for key in locked & {each.name for each in wanted}]
        return DeleteResult([], [*(delete(bucket, free, **options).error_list if free else []), *errors])

    with monkeypatch.context() as patched:
        patched.setattr(bench.store._client, "_delete_objects", partly)
        report = store.collect(gc_grace_seconds=0.0)
    assert (report.orphans, report.removed, report.checkpoints_purged, report.refused) == (2, 1, 1, 2)
    assert report.removed_bytes == 4 + second.size_bytes
    assert locked < store.content()
    assert f"{prefix}/b" not in store.content()
    assert store.marks() == {f"{prefix}/a"}
    again = store.collect(gc_grace_seconds=0.0)
    assert (again.removed, again.checkpoints_purged, again.refused) == (1, 1, 0)
    assert not locked & store.content()


def test_states_and_samples_of_a_job_that_ended_long_ago_go_and_its_result_stays(bench: Bench, store: Store) -> None:
    bench.script(samples=1)
    job_id = bench.submit()
    bench.run()
    pinned, *others = bench.checkpoints(job_id)
    with transaction(bench.sessions) as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == pinned.id).values(pinned_at=func.now()))
    days = {"retain_states_days": 30.0, "retain_samples_days": 60.0}
    assert store.collect(**days).states_expired == 0
    store.age(Job.finished_at, hours=24 * 31)
    assert store.collect(dry_run=True, **days).states_expired == len(others)
    assert store.collect(**days).states_expired == len(others)
    assert [row.id for row in bench.checkpoints(job_id)] == [pinned.id]
    assert len(bench.checkpoints(job_id, "adapter")) == 1
    assert len(bench.rows(Sample, job_id)) == 6
    store.age(Job.finished_at, hours=24 * 30)
    assert store.collect(**days).samples_expired == 6
    assert bench.rows(Sample, job_id) == []
    for _ in range(2):  # The samples' files are orphans by now, the states' have been let go of: marks, then deletion.
        store.collect(gc_grace_seconds=0.0)
    kept = {f"{row.object_prefix}/{file['path']}" for row in bench.rows(Checkpoint, job_id) for file in row.files}
    kept -= {f"{row.object_prefix}/{file['path']}" for row in others for file in row.files}
    assert {key for key in store.content() if "/artifacts/" not in key} == kept


def test_a_job_that_is_tried_again_meanwhile_keeps_what_it_goes_on_from(bench: Bench, store: Store) -> None:
    bench.script(attempts={"1": {"5": {"exit": 1, "error": {"code": "reward_failed", "message": "no"}}}})
    job_id = bench.submit()
    bench.run(retry_seconds=1000)
    with transaction(bench.sessions) as session:  # As the collector finds it when the retry comes after its reading.
        session.execute(update(Job).values(finished_at=func.now() - timedelta(days=40), status="queued"))
    assert store.collect(retain_states_days=30.0).states_expired == 0
    assert [row.step for row in bench.checkpoints(job_id)] == [2, 4]


def test_rows_without_their_object_are_told_and_left(bench: Bench, store: Store) -> None:
    job_id = bench.submit()
    bench.run()
    lost = f"{bench.checkpoints(job_id)[0].object_prefix}/state.txt"
    bench.store.delete(lost)
    report = store.collect()
    assert (report.missing, report.orphans) == ([lost], 0)
    assert len(bench.checkpoints(job_id)) == 3


def test_the_operators_command_shows_first_and_then_does(
    bench: Bench, store: Store, service_env: dict[str, str]
) -> None:
    with transaction(bench.sessions) as session:
        prefix = f"projects/{api_keys.project_named(session, 'default')}/jobs/job_gone/1"
    store.put(f"{prefix}/adapter/a.bin", f"{prefix}/adapter/b.bin")

    def gc(*arguments: str) -> str:
        command = [sys.executable, "-m", "worker", "gc", *arguments]
        env = {**os.environ, **service_env, "EGRPO_GC_GRACE_SECONDS": "0"}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    shown = gc("--dry-run")
    assert shown.startswith("dry run: nothing was changed")
    assert "2 objects without a row marked" in shown
    assert len(store.content()) == 2
    assert "2 objects without a row removed" in gc()
    assert store.content() == set()
