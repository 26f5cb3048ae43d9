"""Budgets and deadlines of jobs, as their owner sees and changes them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_bench import SPEC, Bench, assert_problem
from sqlalchemy import update

from jobs.tables import Job


def patch(bench: Bench, job_id: str, limits: Any) -> Any:
    return bench.client.patch(f"/v1/jobs/{job_id}", json={"limits": limits}, headers=bench.auth())


@pytest.mark.parametrize(
    ("deadline", "code"),
    [
        ("2020-01-01T00:00:00Z", "out_of_range"),
        ("2999-01-01T00:00:00", "wrong_format"),
        ("soon", "wrong_format"),
        ("9999-12-31T23:59:59-23:00", "wrong_format"),
        (1893456000, "wrong_type"),
    ],
)
def test_a_deadline_that_is_over_or_no_time_is_refused_before_anything_is_queued(
    bench: Bench, deadline: object, code: str
) -> None:
    limits = {"deadline_at": deadline}
    job_id = bench.submit()["id"]
    answers = [bench.post(path, {**SPEC, "limits": limits}) for path in ("/v1/jobs", "/v1/jobs/validate")]
    for answer in (*answers, patch(bench, job_id, limits)):
        (error,) = assert_problem(answer, 422, "invalid_request")["errors"]
        assert (error["pointer"], error["code"]) == ("/limits/deadline_at", code)
    assert bench.get(f"/v1/jobs/{job_id}").json()["version"] == 1


def test_a_job_at_its_limit_is_resumed_when_the_limit_is_changed(bench: Bench) -> None:
    due = (datetime.now(UTC) + timedelta(days=1)).astimezone(UTC).replace(microsecond=0)
    job = bench.submit(limits={"max_gpu_hours": 6, "deadline_at": due.isoformat()})
    shown = {"max_gpu_hours": 6, "deadline_at": f"{due:%Y-%m-%dT%H:%M:%SZ}", "on_limit": "pause"}
    assert (job["limits"], job["spec"]["limits"], job["gpu_seconds"]) == (shown, shown, 0)
    assert bench.post(f"/v1/jobs/{job['id']}/pause").status_code == 200
    with bench.transaction() as session:
        session.execute(update(Job).values(gpu_seconds=6 * 3600))
    body = assert_problem(bench.post(f"/v1/jobs/{job['id']}/resume"), 409, "limit_reached")
    assert (body["limit"], body["retryable"]) == ("limits.max_gpu_hours", False)
    changed = patch(bench, job["id"], {"max_gpu_hours": 7}).json()
    assert changed["limits"] == {**shown, "max_gpu_hours": 7, "deadline_at": None}, "replaced as a whole"
    assert changed["spec"] == job["spec"]
    assert bench.post(f"/v1/jobs/{job['id']}/resume").json()["status"] == "queued"
