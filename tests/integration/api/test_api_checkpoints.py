"""Checkpoints: one with its manifest, kept by a pin, deleted unless something needs it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from api_bench import Bench, assert_problem

from jobs import checkpoints, jobs, lifecycle
from jobs.leases import Claim
from jobs.states import Status


class Rows:
    """A running job with the states of steps 20, 40 and 60, and an adapter."""

    def __init__(self, bench: Bench) -> None:
        bench.submit()
        self.bench = bench
        self.claim: Claim = bench.claim()
        self.states = [self._state(step) for step in (20, 40, 60)]
        self.adapter = bench.finish_files(self.claim)["checkpoint"]

    def _state(self, step: int) -> str:
        claim = self.claim
        with self.bench.transaction() as session:
            return checkpoints.add(
                session, claim.job_id, claim.epoch, step=step, kind="state", object_prefix=f"states/{step}",
                files=[{"path": "state.safetensors", "sha256": "0" * 64, "size_bytes": step}],
                spec_digest=claim.spec_digest, eval_reward=0.5,
            )  # fmt: skip

    def url(self, checkpoint: str, action: str = "") -> str:
        return f"/v1/jobs/{self.claim.job_id}/checkpoints/{checkpoint}{action}"

    def delete(self, checkpoint: str) -> Any:
        return self.bench.client.delete(self.url(checkpoint), headers=self.bench.auth())

    def end(self, status: Status) -> None:
        with self.bench.transaction() as session:
            lifecycle.transition(session, lifecycle.lock(session, self.claim.job_id), status, phase="done")


@pytest.fixture
def rows(bench: Bench) -> Rows:
    return Rows(bench)


def test_one_checkpoint_is_as_in_the_list(rows: Rows) -> None:
    listed = rows.bench.get(f"/v1/jobs/{rows.claim.job_id}/checkpoints").json()["data"]
    assert [row["id"] for row in listed] == [*rows.states, rows.adapter]
    for row in listed:
        assert rows.bench.get(rows.url(row["id"])).json() == row
    (file,) = listed[0]["files"]
    assert (file["path"], file["size_bytes"], file["sha256"]) == ("state.safetensors", 20, "0" * 64)
    assert_problem(rows.bench.get(rows.url("ckpt_x")), 404, "not_found")


def test_a_pinned_one_stays_until_it_is_unpinned(rows: Rows) -> None:
    bench, first = rows.bench, rows.states[0]
    pinned = bench.post(rows.url(first, "/pin"), Idempotency_Key="a").json()
    assert pinned["pinned_at"] is not None
    assert bench.post(rows.url(first, "/pin")).json() == pinned, "a second pin changes nothing"
    assert assert_problem(rows.delete(first), 409, "checkpoint_needed")["needed_for"] == "pin"
    assert bench.post(rows.url(first, "/unpin")).json()["pinned_at"] is None
    replayed = bench.post(rows.url(first, "/pin"), Idempotency_Key="a")
    assert replayed.headers["idempotency-replayed"] == "true"
    assert replayed.json() == pinned
    assert bench.get(rows.url(first)).json()["pinned_at"] is None, "the stored answer was given, and nothing done"
    assert rows.delete(first).status_code == 204


def test_a_deleted_one_is_gone_for_good(rows: Rows) -> None:
    first = rows.states[0]
    deleted = rows.delete(first)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert_problem(rows.delete(first), 404, "not_found")
    assert_problem(rows.bench.post(rows.url(first, "/pin")), 404, "not_found")
    assert_problem(rows.bench.get(rows.url(first, "/files/state.safetensors")), 404, "not_found")
    assert len(rows.bench.get(f"/v1/jobs/{rows.claim.job_id}/checkpoints").json()["data"]) == 3


def test_what_the_job_would_resume_from_stays_until_the_job_has_ended(rows: Rows) -> None:
    newest = rows.states[-1]
    body = assert_problem(rows.delete(newest), 409, "checkpoint_needed")
    assert (body["needed_for"], body["retryable"]) == ("resume", False)
    rows.end(Status.QUEUED)  # Its worker was lost: the next one goes on from there.
    assert_problem(rows.delete(newest), 409, "checkpoint_needed")
    assert rows.delete(rows.states[1]).status_code == 204
    with rows.bench.transaction() as session:
        jobs.cancel(session, rows.bench.project, rows.claim.job_id, deadline=timedelta(seconds=1))
    assert rows.delete(newest).status_code == 204


def test_the_result_of_a_job_is_no_mere_checkpoint(rows: Rows) -> None:
    assert assert_problem(rows.delete(rows.adapter), 409, "checkpoint_needed")["needed_for"] == "adapter"
    rows.end(Status.SUCCEEDED)
    assert_problem(rows.delete(rows.adapter), 409, "checkpoint_needed")
    assert rows.delete(rows.states[-1]).status_code == 204


def test_states_of_a_job_that_has_ended_say_when_they_go(rows: Rows) -> None:
    def expiry(checkpoint: str) -> Any:
        return rows.bench.get(rows.url(checkpoint)).json()["expires_at"]

    first = rows.states[0]
    assert expiry(first) is None
    rows.end(Status.SUCCEEDED)
    ended = datetime.fromisoformat(rows.bench.get(f"/v1/jobs/{rows.claim.job_id}").json()["finished_at"])
    assert datetime.fromisoformat(expiry(first)) == ended + timedelta(days=30)
    assert expiry(rows.adapter) is None
    assert rows.bench.post(rows.url(first, "/pin")).json()["expires_at"] is None
