"""Creating, reading, listing and cancelling jobs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import httpx
import pytest
from api_bench import SPEC, Bench, assert_problem
from sqlalchemy import func, select, text

from egrpo.catalogue import MODELS, REWARDS
from jobs import leases
from jobs.retries import Retry
from jobs.states import Desired, Status
from jobs.tables import Event, Job


def num_jobs(bench: Bench) -> int:
    with bench.transaction() as session:
        return session.scalars(select(func.count()).select_from(Job)).one()


def test_create_answers_with_the_whole_job(bench: Bench) -> None:
    response = bench.post("/v1/jobs", {**SPEC, "metadata": {"ticket": "ML-88"}})
    job = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["id"].startswith("job_")
    assert (job["status"], job["phase"], job["status_reason"]) == ("queued", "waiting_capacity", None)
    assert (job["attempt"], job["version"], job["allowed_actions"]) == (0, 1, ["cancel", "pause"])
    assert job["progress"] == {"step": 0, "total_steps": 120, "steps_per_second": None, "eta_seconds": None}
    assert job["queue"]["position"] == 1
    assert job["queue"]["reason"]["code"] == "no_worker"
    assert job["metadata"] == {"ticket": "ML-88"}
    assert job["spec"]["method"]["entropy_threshold"] == 2.2, "the stored spec shows the defaults"
    assert datetime.fromisoformat(job["created_at"]).utcoffset() is not None
    assert bench.get(f"/v1/jobs/{job['id']}").json() == job


def test_first_event_says_queued(bench: Bench) -> None:
    job = bench.submit()
    events = bench.get(f"/v1/jobs/{job['id']}/events").json()
    assert [(event["seq"], event["type"], event["data"]["status"]) for event in events["data"]] == [
        (1, "status", "queued")
    ]


def test_every_problem_of_a_body_at_once_and_nothing_is_queued(bench: Bench) -> None:
    body = {
        "base_model": "flux-9000",
        "prompts": {"inline": ["fine", "   "]},
        "reward": {"components": [{"type": "beauty"}]},
        "training": {"steps": "300", "lr": 1},
        "method": {"eta": -1},
        "colour": "red",
    }
    errors = assert_problem(bench.post("/v1/jobs", body), 422, "invalid_request")["errors"]
    found = {error["pointer"]: (error["code"], error.get("allowed")) for error in errors}
    assert found["/base_model"] == ("unknown_model", sorted(MODELS))
    assert found["/reward/components/0/type"] == ("unknown_reward", list(REWARDS))
    assert found["/prompts/inline/1"][0] == "too_short"
    assert found["/training/steps"][0] == "wrong_type"
    assert found["/training/lr"][0] == "unknown_field"
    assert "learning_rate" in found["/training/lr"][1]
    assert found["/method/eta"] == ("out_of_range", "> 0.0")
    assert found["/colour"][0] == "unknown_field"
    assert num_jobs(bench) == 0


def test_a_plan_over_the_dispersion_limit_names_the_steps(bench: Bench) -> None:
    method = {"shift": 3, "merging": "fixed", "fixed_length": 6}
    body = assert_problem(bench.post("/v1/jobs", {**SPEC, "method": method}), 422, "invalid_request")
    (error,) = body["errors"]
    assert error["code"] == "dispersion_above_limit"
    assert error["pointer"].startswith("/method")
    assert "1->7" in error["detail"]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b"", 400, "malformed_json"),
        (b'{"name": NaN}', 400, "malformed_json"),
        (b"\xff\xfe{", 400, "malformed_json"),
        (b"[" * 50_000, 400, "malformed_json"),
        (b'{"height": ' + b"9" * 5000 + b"}", 400, "malformed_json"),
        (b"[]", 422, "invalid_request"),
        (b'"x"', 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b'{"name": "\\u0000", "metadata": {"\\ud800": "\\udfff"}}', 422, "invalid_request"),
        (b'{"training": {"learning_rate": 1e999, "seed": ' + b"9" * 400 + b"}}", 422, "invalid_request"),
        (b" " * 100_001, 413, "payload_too_large"),
    ],
)
def test_bodies_that_are_no_job(bench: Bench, content: bytes, status: int, code: str) -> None:
    headers = {**bench.auth(), "Content-Type": "application/json"}
    assert_problem(bench.client.post("/v1/jobs", content=content, headers=headers), status, code)
    assert num_jobs(bench) == 0


def test_a_streamed_body_is_refused_at_the_limit_and_not_read_on(bench: Bench) -> None:
    sent = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal sent
        for _ in range(10_000):
            sent += 10_000
            yield b" " * 10_000

    headers = {**bench.auth(), "Content-Type": "application/json"}
    response = bench.client.post("/v1/jobs", content=endless(), headers=headers)
    assert_problem(response, 413, "payload_too_large")


def test_other_media_types_are_refused(bench: Bench) -> None:
    response = bench.client.post("/v1/jobs", content="a=b", headers={**bench.auth(), "Content-Type": "text/plain"})
    assert_problem(response, 415, "unsupported_media_type")


def test_list_pages_newest_first_with_filters(bench: Bench) -> None:
    ids = [bench.submit(name=f"run-{index % 2}")["id"] for index in range(5)]
    first = bench.get("/v1/jobs", limit=3).json()
    assert [job["id"] for job in first["data"]] == ids[:1:-1]
    assert first["has_more"] is True
    newer = bench.submit()["id"]
    second = bench.get("/v1/jobs", limit=3, cursor=first["next_cursor"]).json()
    assert [job["id"] for job in second["data"]] == ids[1::-1], "a job that came meanwhile moves no page"
    assert (second["has_more"], second["next_cursor"]) == (False, None)
    assert "spec" not in second["data"][0]
    bench.post(f"/v1/jobs/{ids[0]}/cancel")
    assert [job["id"] for job in bench.get("/v1/jobs", status="cancelled").json()["data"]] == [ids[0]]
    both = bench.get("/v1/jobs", status=["cancelled", "queued"], name="run-0").json()["data"]
    assert [job["id"] for job in both] == [ids[4], ids[2], ids[0]]
    assert bench.get("/v1/jobs", name="posters").json()["data"][0]["id"] == newer


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 201}, {"limit": "x"}, {"status": "sleeping"}, {"cursor": "nonsense!"}, {"stauts": "x"}],
)
def test_bad_list_parameters(bench: Bench, params: dict[str, object]) -> None:
    body = assert_problem(bench.get("/v1/jobs", **params), 422, "invalid_request")
    assert body["errors"][0]["parameter"].split(".")[0] == next(iter(params))


def test_queue_position_and_reason(bench: Bench) -> None:
    jobs = [bench.submit() for _ in range(3)]
    assert [job["queue"]["position"] for job in jobs] == [1, 2, 3]
    assert {job["queue"]["reason"]["code"] for job in jobs} == {"no_worker"}
    assert bench.claim().job_id == jobs[0]["id"]
    listed = {job["id"]: job["queue"] for job in bench.get("/v1/jobs").json()["data"]}
    shown = [bench.get(f"/v1/jobs/{job['id']}").json()["queue"] for job in jobs]
    assert [listed[job["id"]] for job in jobs] == shown
    assert shown[0] is None
    busy = "1 of 1 workers busy"
    assert shown[1:] == [
        {
            "position": 1,
            "reason": {"code": "workers_busy", "message": f"{busy}; waits for a free one"},
            "eta_seconds": None,
        },
        {
            "position": 2,
            "reason": {"code": "behind_other_jobs", "message": f"1 queued before it; {busy}"},
            "eta_seconds": None,
        },
    ]


def test_cancel_ends_a_queued_job_at_once(bench: Bench) -> None:
    job = bench.submit()
    cancelled = bench.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert (cancelled["status"], cancelled["phase"], cancelled["allowed_actions"]) == ("cancelled", "done", ["retry"])
    assert cancelled["status_reason"]["code"] == "cancelled_by_user"
    assert cancelled["status_reason"]["actor"] == "user"
    assert cancelled["finished_at"] is not None
    assert cancelled["version"] > job["version"]
    body = assert_problem(bench.post(f"/v1/jobs/{job['id']}/cancel"), 409, "invalid_state")
    assert (body["current_status"], body["allowed_actions"], body["retryable"]) == ("cancelled", ["retry"], False)
    with bench.transaction() as session:
        assert leases.claim(session, "worker-1", bench_lease()) is None


def test_cancel_asks_the_worker_of_a_running_job(bench: Bench) -> None:
    job = bench.submit()
    claim = bench.claim()
    cancelling = bench.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert cancelling["status"] == "cancelling"
    with bench.transaction() as session:
        assert leases.renew(session, claim.job_id, claim.epoch, bench_lease()) is Desired.CANCEL
        row = session.get_one(Job, job["id"])
        assert row.deadline_at is not None
        assert row.lease_owner == "worker-1"


def bench_lease():  # type: ignore[no-untyped-def]
    from datetime import timedelta

    return timedelta(seconds=90)


def test_idempotency_key_gives_the_stored_answer_again(bench: Bench) -> None:
    first = bench.post("/v1/jobs", SPEC, Idempotency_Key="k1")
    reordered = dict(reversed(SPEC.items()))
    again = bench.post("/v1/jobs", reordered, Idempotency_Key="k1")
    assert "idempotency-replayed" not in first.headers
    assert again.status_code == 201
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    assert num_jobs(bench) == 1
    assert_problem(bench.post("/v1/jobs", {**SPEC, "name": "b"}, Idempotency_Key="k1"), 422, "idempotency_key_reused")
    assert bench.post("/v1/jobs", SPEC, Idempotency_Key="k1", key=bench.other_key).json()["id"] != first.json()["id"]
    assert_problem(bench.post("/v1/jobs", SPEC, Idempotency_Key="x" * 256), 422, "invalid_request")


def test_a_refused_body_does_not_use_up_its_key(bench: Bench) -> None:
    assert_problem(bench.post("/v1/jobs", {}, Idempotency_Key="k1"), 422, "invalid_request")
    assert bench.post("/v1/jobs", SPEC, Idempotency_Key="k1").status_code == 201


def test_cancel_takes_an_idempotency_key(bench: Bench) -> None:
    job = bench.submit()
    first = bench.post(f"/v1/jobs/{job['id']}/cancel", Idempotency_Key="k2")
    again = bench.post(f"/v1/jobs/{job['id']}/cancel", Idempotency_Key="k2")
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()


def test_concurrent_posts_with_one_key_make_one_job(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: bench.post("/v1/jobs", SPEC, Idempotency_Key="k1"), range(16)))
    created = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(set(created)) == 1
    assert num_jobs(bench) == 1
    for answer in refused:
        assert assert_problem(answer, 409, "idempotency_in_flight")["retryable"] is True


def test_a_request_in_flight_is_told_to_come_back(bench: Bench) -> None:
    from api.idempotency import _lock_id

    with bench.transaction() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _lock_id(bench.project, "k1")})
        answer = bench.post("/v1/jobs", SPEC, Idempotency_Key="k1")
    body = assert_problem(answer, 409, "idempotency_in_flight")
    assert body["retryable"] is True
    assert answer.headers["retry-after"] == "1"
    assert bench.post("/v1/jobs", SPEC, Idempotency_Key="k1").status_code == 201


def test_no_answer_before_the_commit(bench: Bench) -> None:
    """A deferred constraint fails at COMMIT: the client must not have been told 201."""
    with bench.transaction() as session:
        session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$"
            )
        )
        session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    assert_problem(bench.post("/v1/jobs", SPEC), 500, "internal")
    assert num_jobs(bench) == 0


def test_event_numbers_have_no_gaps_under_concurrency(bench: Bench) -> None:
    from jobs import events

    job = bench.submit()

    def append(index: int) -> None:
        with bench.transaction() as session:
            events.append(session, job["id"], "log", {"index": index})
            if index % 5 == 0:
                session.rollback()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(60)))
    with bench.transaction() as session:
        seqs = list(session.scalars(select(Event.seq).where(Event.job_id == job["id"]).order_by(Event.seq)))
    assert seqs == list(range(1, 1 + 1 + 48))


def test_hint_reaches_the_broker_after_the_commit(bench: Bench) -> None:
    import redis

    job = bench.submit()
    with redis.Redis.from_url(bench.settings.broker_url) as client:
        (message,) = client.lrange("gpu", 0, -1)
    hint = json.loads(message)
    assert hint["headers"]["task"] == "worker.run_next"
    assert job["id"] not in message.decode()


def test_a_queued_job_is_paused_at_once_and_goes_back_to_its_place(bench: Bench) -> None:
    first, second = bench.submit(), bench.submit()
    paused = bench.post(f"/v1/jobs/{first['id']}/pause").json()
    assert (paused["status"], paused["status_reason"]["code"], paused["queue"]) == ("paused", "paused_by_user", None)
    assert paused["allowed_actions"] == ["cancel", "resume"]
    assert bench.get(f"/v1/jobs/{second['id']}").json()["queue"]["position"] == 1
    body = assert_problem(bench.post(f"/v1/jobs/{first['id']}/pause"), 409, "invalid_state")
    assert (body["current_status"], body["allowed_actions"]) == ("paused", ["cancel", "resume"])
    resumed = bench.post(f"/v1/jobs/{first['id']}/resume").json()
    assert (resumed["status"], resumed["status_reason"], resumed["queue"]["position"]) == ("queued", None, 1)
    assert_problem(bench.post(f"/v1/jobs/{first['id']}/resume"), 409, "invalid_state")
    assert bench.claim().job_id == first["id"]


def test_a_failed_job_is_tried_again_with_its_history_and_no_attempt_held_against_it(bench: Bench) -> None:
    job, behind = bench.submit()["id"], bench.submit()["id"]
    claim = bench.claim()
    failure = leases.StatusReason(code="reward_failed", message="no such shape", retryable=False, actor="user")
    with bench.transaction() as session:
        row = leases.guard(session, job, claim.epoch)
        row.attempts_without_progress = 2
        leases.end(session, row, Status.FAILED, failure, phase="done", exit_code=69)
    failed = bench.get(f"/v1/jobs/{job}").json()
    assert (failed["status"], failed["allowed_actions"]) == ("failed", ["retry"])
    assert_problem(bench.post(f"/v1/jobs/{job}/retry", key=bench.other_key), 404, "not_found")
    answer = bench.post(f"/v1/jobs/{job}/retry", Idempotency_Key="r1")
    again = answer.json()
    assert (again["status"], again["phase"], again["status_reason"]) == ("queued", "waiting_capacity", None)
    assert (again["finished_at"], again["attempt"], again["queue"]["position"]) == (None, 1, 1)
    assert bench.post(f"/v1/jobs/{job}/retry", Idempotency_Key="r1").json() == again, "asked once"
    body = assert_problem(bench.post(f"/v1/jobs/{job}/retry"), 409, "invalid_state")
    assert (body["current_status"], body["allowed_actions"]) == ("queued", ["cancel", "pause"])
    events = [event["data"]["status"] for event in bench.get(f"/v1/jobs/{job}/events").json()["data"]]
    assert events == ["queued", "running", "failed", "queued"]
    with bench.transaction() as session:
        assert session.get_one(Job, job).attempts_without_progress == 0
    second = bench.claim()
    assert (second.job_id, second.attempt, second.epoch) == (job, 2, 2)
    assert bench.post(f"/v1/jobs/{behind}/retry").status_code == 409


def test_a_job_is_renamed_at_the_version_that_was_seen_and_at_no_other(bench: Bench) -> None:
    job = bench.submit(metadata={"ticket": "ML-88"})

    def patch(body: object, tag: str | None = None, key: str | None = None) -> httpx.Response:
        headers = {**bench.auth(key), **({"If-Match": tag} if tag else {})}
        return bench.client.patch(f"/v1/jobs/{job['id']}", json=body, headers=headers)

    seen = bench.get(f"/v1/jobs/{job['id']}").headers["etag"]
    renamed = patch({"name": "covers"}, seen)
    assert (renamed.status_code, renamed.headers["etag"][:3]) == (200, '"2-')
    assert renamed.json() == bench.get(f"/v1/jobs/{job['id']}").json()
    assert (renamed.json()["name"], renamed.json()["metadata"]) == ("covers", {"ticket": "ML-88"})
    assert renamed.json()["spec"] == job["spec"]
    body = assert_problem(patch({"name": "late"}, seen), 412, "version_mismatch")
    assert (body["current_version"], bench.get(f"/v1/jobs/{job['id']}").json()["name"]) == (2, "covers")
    assert patch({"name": "covers"}, '"2"').json()["version"] == 2, "nothing changed"
    assert patch({"metadata": {}}, "*").json()["metadata"] == {}
    events = bench.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    shown = [(event["data"]["name"], event["data"]["version"]) for event in events if event["type"] == "changed"]
    assert shown == [("covers", 2), ("covers", 3)], "nothing is told of a change that changed nothing"
    wrong = {"name": "", "metadata": {"a": 1}, "training": {}}
    errors = assert_problem(patch(wrong), 422, "invalid_request")["errors"]
    assert {error["pointer"] for error in errors} == {"/name", "/metadata/a", "/training"}
    allowed = next(error["allowed"] for error in errors if error["pointer"] == "/training")
    assert allowed == ["limits", "metadata", "name"]
    assert_problem(patch({"name": None}), 422, "invalid_request")
    assert_problem(patch({"name": "x"}, 'W/"2"'), 422, "invalid_request")
    assert_problem(patch({"name": "mine"}, key=bench.other_key), 404, "not_found")


def test_a_job_that_is_as_it_was_is_not_sent_again(bench: Bench) -> None:
    first, second = bench.submit()["id"], bench.submit()["id"]

    def again(tag: str) -> httpx.Response:
        response: httpx.Response = bench.get(f"/v1/jobs/{second}", headers={"If-None-Match": tag})
        return response

    tag = bench.get(f"/v1/jobs/{second}").headers["etag"]
    same = again(f'"other", W/{tag}')
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    bench.post(f"/v1/jobs/{first}/cancel")
    moved = again(tag)
    assert (moved.status_code, moved.json()["queue"]["position"]) == (200, 1), "its own version is what it was"
    assert moved.headers["etag"] != tag
    headers = {**bench.auth(), "If-Match": tag}
    renamed = bench.client.patch(f"/v1/jobs/{second}", json={"name": "covers"}, headers=headers)
    assert renamed.status_code == 200, "its place in the queue is no change of the job"


def test_jobs_are_found_by_model_and_time(bench: Bench) -> None:
    first, second = bench.submit(), bench.submit(base_model="flux-1-dev")

    def found(**filters: str) -> list[str]:
        return [job["id"] for job in bench.get("/v1/jobs", **filters).json()["data"]]

    assert found(base_model="flux-1-dev") == [second["id"]]
    assert found(created_after=second["created_at"]) == [second["id"]]
    assert found(created_before=second["created_at"]) == [first["id"]]
    assert found(created_after=first["created_at"], created_before=first["created_at"]) == []
    for year in ("0001-01-01", "9999-12-31"):
        sides = found(created_after=f"{year}T00:00:00Z"), found(created_before=f"{year}T00:00:00Z")
        assert sorted(map(len, sides)) == [0, 2], "the ends of time are times, too"
    wrong = {"created_after": "2026-01-01T00:00:00", "created_before": "yesterday", "colour": "red"}
    errors = assert_problem(bench.get("/v1/jobs", **wrong), 422, "invalid_request")["errors"]
    assert {error["parameter"] for error in errors} == set(wrong), "a time without its offset is no time"


def test_jobs_are_found_by_metadata_in_either_order(bench: Bench) -> None:
    both = {"ticket": "ML-88", "a[b]": "1"}
    ids = [bench.submit(metadata=metadata)["id"] for metadata in (both, {"ticket": "ML-88"}, {"ticket": "ML-8"}, both)]

    def found(**filters: object) -> list[int]:
        return [ids.index(job["id"]) for job in bench.get("/v1/jobs", **filters).json()["data"]]

    assert found(**{"metadata[ticket]": "ML-88"}) == [3, 1, 0]
    assert found(**{"metadata[ticket]": "ML-88", "metadata[a[b]]": "1", "order": "asc"}) == [0, 3]
    assert found(**{"metadata[ticket]": "ML-88", "metadata[other]": "1"}) == []
    first = bench.get("/v1/jobs", order="asc", limit=2).json()
    assert [job["id"] for job in first["data"]] == ids[:2]
    assert found(order="asc", limit=2, cursor=first["next_cursor"]) == [2, 3]
    wrong = {
        "metadata[x]": ["1", "2"], f"metadata[{'k' * 65}]": "1", "metadata[y]": "v" * 513, "metadat[z]": "1",
        "order": "up",
    }  # fmt: skip
    errors = assert_problem(bench.get("/v1/jobs", **wrong), 422, "invalid_request")["errors"]
    assert {error["parameter"] for error in errors} == set(wrong)
    assert_problem(bench.get("/v1/jobs", metadata="ticket"), 422, "invalid_request")
    many = {f"metadata[{number}]": "1" for number in range(17)}
    assert_problem(bench.get("/v1/jobs", **many), 422, "invalid_request")


def test_pause_asks_the_worker_of_a_running_job(bench: Bench) -> None:
    job = bench.submit()
    claim = bench.claim()
    pausing = bench.post(f"/v1/jobs/{job['id']}/pause", Idempotency_Key="p1")
    assert (pausing.json()["status"], pausing.json()["allowed_actions"]) == ("pausing", ["cancel"])
    assert bench.post(f"/v1/jobs/{job['id']}/pause", Idempotency_Key="p1").json() == pausing.json()
    with bench.transaction() as session:
        assert leases.renew(session, claim.job_id, claim.epoch, bench_lease()) is Desired.PAUSE
        assert session.get_one(Job, job["id"]).deadline_at is not None
    assert bench.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "cancelling"


def test_attempts_say_who_ran_the_job_and_how_that_ended(bench: Bench) -> None:
    job = bench.submit()["id"]
    assert bench.get(f"/v1/jobs/{job}/attempts").json() == {"data": [], "has_more": False, "next_cursor": None}
    lost = leases.StatusReason(code="preempted", message="shut down", retryable=True, actor="system")
    for _ in range(2):
        claim = bench.claim()
        with bench.transaction() as session:
            leases.note_resumed(session, claim, 7)
            locked = leases.guard(session, job, claim.epoch)
            leases.end_by_reason(session, locked, lost, Retry(timedelta(0)), exit_code=75)
    bench.claim()
    first = bench.get(f"/v1/jobs/{job}/attempts", limit=1).json()
    rest = bench.get(f"/v1/jobs/{job}/attempts", cursor=first["next_cursor"]).json()
    shown = [(row["number"], row["outcome"], row["exit_code"]) for row in first["data"] + rest["data"]]
    assert shown == [(1, "queued", 75), (2, "queued", 75), (3, None, None)]
    assert (first["data"][0]["resumed_from_step"], first["data"][0]["reason"]) == (7, lost)
    assert (first["data"][0]["worker"], rest["data"][1]["finished_at"]) == ("worker-1", None)
    assert (first["data"][0]["gpu_type"], first["data"][0]["num_gpus"]) == ("cpu", 1)
