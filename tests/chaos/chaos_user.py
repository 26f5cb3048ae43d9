"""A careful user: any API will do, and what got no answer, or may be tried again, is asked again with the same key.

Some jobs are cancelled, some paused, some of those resumed; the answers say how each may end. A job that failed, and of
which the service says that another try may help, is tried again.
"""

from __future__ import annotations

import random
import uuid
from typing import Any

import httpx
from chaos_service import STEPS, wait_for

SPEC = {
    "name": "chaos",
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle"]},
    "reward": {"components": [{"type": "shapes"}]},
}
ENDED = frozenset({"succeeded", "failed", "cancelled"})
# What the user does to a job, one after the other; in five jobs each comes once, and most jobs are left alone.
FATES: tuple[tuple[str, ...], ...] = ((), (), ("cancel",), ("pause",), ("pause", "resume"))
# How a job may end by the status in the answer to what was asked last. A trainer may finish before it hears of a wish.
MAY_END = {
    "queued": frozenset({"succeeded"}),
    "cancelled": frozenset({"cancelled"}),
    "cancelling": frozenset({"cancelled", "succeeded"}),
    "paused": frozenset({"paused"}),
    "pausing": frozenset({"paused", "succeeded"}),
}
# A trainer that is asked to end by then has half of its steps before it.
EARLY_STEP = STEPS // 2
_HESITATION = 0.5  # how likely a wish waits for another fault


class User:
    """Asks one API after the other until one answers."""

    def __init__(self, ports: list[int], key: str, seed: int) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._apis = [httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10) for port in ports]
        self._draw = random.Random(seed)
        self._fates: list[tuple[str, ...]] = []
        self._wishes: dict[str, list[str]] = {}
        self._ended: set[str] = set()
        self.may_end: dict[str, frozenset[str]] = {}
        self.stopped_early: set[str] = set()
        self.num_retried = 0

    @property
    def jobs(self) -> list[str]:
        return list(self.may_end)

    def submit(self, spec: dict[str, Any] = SPEC) -> str:
        """Submits one more job and returns its id; nothing will be done to it."""
        answer = self._ask("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        job_id = str(answer.json()["id"])
        self._wishes[job_id] = []
        self.may_end[job_id] = MAY_END[answer.json()["status"]]
        return job_id

    def keep_busy(self, num_jobs: int) -> None:
        """Submits jobs until there are so many unfinished ones, and decides what will be done to each."""
        for _ in range(num_jobs - len(self.unfinished())):
            if not self._fates:
                self._fates = self._draw.sample(FATES, len(FATES))
            self._wishes[self.submit()] = list(self._fates.pop())

    def unfinished(self) -> list[str]:
        """Returns the jobs that have not come to the end that is meant for them, as far as the APIs tell."""
        self._ended |= {job_id for job_id in self.jobs if job_id not in self._ended and self._has_ended(job_id)}
        return [job_id for job_id in self.jobs if job_id not in self._ended]

    def _has_ended(self, job_id: str) -> bool:
        answer = self._get(f"/v1/jobs/{job_id}")
        if answer is None:
            return False
        status, reason = answer.json()["status"], answer.json()["status_reason"]
        if status == "failed" and reason["retryable"]:  # Three attempts in a row were struck before their first commit.
            self._wishes[job_id] = ["retry"]
            return False
        return status in ENDED or (status == "paused" and not self._wishes[job_id])

    def act(self) -> list[str]:
        """Does some of what is meant to be done, and returns what."""
        willing = [job_id for job_id in self.unfinished() if self._wishes[job_id] and self._draw.random() > _HESITATION]
        return [f"{self._wishes[job_id][0]} {job_id}: {self._do_next(job_id)}" for job_id in willing]

    def _do_next(self, job_id: str) -> str:
        action = self._wishes[job_id][0]
        answer = self._ask(f"/v1/jobs/{job_id}/{action}")
        if answer.is_success:
            del self._wishes[job_id][0]
            self._note(job_id, answer.json())
            self.num_retried += action == "retry"
        elif action != "resume":  # One that is only pausing is resumed later; one that has ended keeps its end.
            self._wishes[job_id].clear()
        return str(answer.json()["status"])

    def _note(self, job_id: str, job: dict[str, Any]) -> None:
        self.may_end[job_id] = MAY_END[job["status"]]
        early = (job["progress"] or {"step": 0})["step"] <= EARLY_STEP
        self.stopped_early -= {job_id}
        self.stopped_early |= {job_id} if early and job["status"] in ("cancelling", "pausing") else set()

    def told(self) -> str:
        """Returns how all jobs stand, for whoever looks into a failure."""
        answers = [self._get(f"/v1/jobs/{job_id}") for job_id in self.jobs]
        jobs = [answer.json() for answer in answers if answer is not None]
        return "".join(
            f"\n  {job['id']} {job['status']} attempt {job['attempt']} {job['status_reason']}" for job in jobs
        )

    def states(self, job_id: str) -> set[str]:
        """Returns the ids of the job's states."""
        return {row["id"] for row in self._checkpoints(job_id) if row["kind"] == "state"}

    def adapter(self, job_id: str, name: str) -> bytes:
        """Downloads a file of the job's adapter."""
        (row,) = [row for row in self._checkpoints(job_id) if row["kind"] == "adapter"]
        answer = self._get(f"/v1/jobs/{job_id}/checkpoints/{row['id']}/files/{name}")
        return b"" if answer is None else answer.content

    def metric(self, job_id: str, name: str) -> list[tuple[int, float]]:
        answer = self._get(f"/v1/jobs/{job_id}/metrics?names={name}")
        return [] if answer is None else [(row["step"], row["value"]) for row in answer.json()["data"]]

    def _checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        answer = self._get(f"/v1/jobs/{job_id}/checkpoints?limit=200")
        return [] if answer is None else list(answer.json()["data"])

    def _ask(self, path: str, **what: Any) -> httpx.Response:
        """POSTs until there is an answer."""
        key = {"Idempotency-Key": uuid.uuid4().hex}
        answer = wait_for(lambda: self._asked("POST", path, headers=key, **what), f"answer to POST {path}")
        assert isinstance(answer, httpx.Response)
        assert answer.is_success or answer.status_code == 409, answer.text
        return answer

    def _get(self, path: str) -> httpx.Response | None:
        return self._asked("GET", path)

    def _asked(self, method: str, path: str, **what: Any) -> httpx.Response | None:
        """Returns the first answer, or None while no API has one."""
        for api in self._apis:
            try:
                answer = api.request(method, path, **what)
            except httpx.TransportError:
                continue
            if answer.is_success or not answer.json()["retryable"]:
                return answer
        return None

    def close(self) -> None:
        for api in self._apis:
            api.close()
