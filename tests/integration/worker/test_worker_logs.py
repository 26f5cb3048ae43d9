"""What a job's log holds after attempts that printed, reported, crashed and were killed."""

import json
import signal

import pytest
from worker_bench import Bench

from jobs.events import MAX_LOG_EVENTS
from jobs.tables import LogLine


def lines_of(bench: Bench, job_id: str) -> list[LogLine]:
    lines = sorted(bench.rows(LogLine, job_id), key=lambda line: line.number)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    return lines


def test_the_log_tells_all_attempts_to_the_last_word(bench: Bench) -> None:
    said = json.dumps({"type": "log", "level": "warning", "message": "rewards fall apart"})
    kill = {"print": "about to die\nno newline at the end\r", "signal": int(signal.SIGKILL)}
    bench.script(
        attempts={"1": {"1": {"print": "loading"}, "2": {"raw": said}, "3": kill}, "2": {"4": {"print": "ok"}}}
    )
    job_id = bench.submit()
    runner = bench.runner(publish_seconds=0.5)  # Longer than the attempts: their ends bring most of it.
    while bench.job(job_id).status != "succeeded":
        runner.run_until_idle()
    lines = lines_of(bench, job_id)
    output = [(line.attempt, line.message) for line in lines if line.source == "output"]
    assert output == [(1, "loading"), (1, "about to die"), (1, "no newline at the end"), (2, "ok")]
    assert [(line.level, line.message) for line in lines if line.source == "trainer"] == [
        ("warning", "rewards fall apart")
    ]
    supervisor = [line.message for line in lines if line.source == "supervisor"]
    assert supervisor[0] == "event=attempt_started worker=worker"
    assert [line.split(" ")[0] for line in supervisor] == [
        "event=attempt_started", "event=trainer_started", "event=trainer_ended", "event=attempt_ended",
        "event=attempt_started", "event=trainer_started", "event=trainer_ended", "event=attempt_succeeded",
    ]  # fmt: skip
    assert "reason=trainer_killed" in supervisor[3]
    assert (lines[-1].attempt, lines[-1].message) == (2, "event=attempt_succeeded")


def test_a_trainer_that_reports_without_end_costs_a_bounded_number_of_events(bench: Bench) -> None:
    said = [json.dumps({"type": "log", "message": f"{number} {'g' * 3000}"}) for number in range(2_500)]
    bench.script(attempts={"1": {"2": {"raw": "\n".join(said)}}})
    job_id = bench.submit()
    bench.run()
    assert bench.job(job_id).status == "succeeded"
    events = bench.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    messages = [event.data["message"] for event in events if event.type == "log"]
    assert len(messages) == MAX_LOG_EVENTS
    assert messages[0] == f"0 {'g' * 1998} … 1002 more characters"
    assert messages[-1] == "the job has 2000 events of type log; what follows is in its log alone"
    assert len([event for event in events if event.type == "metric"]) == 6
    assert sum(line.source == "trainer" for line in lines_of(bench, job_id)) == 2_500


def test_no_secret_gets_into_the_log_the_events_or_the_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "not-of-a-known-shape")
    secrets = [bench.settings.s3_secret_key.get_secret_value(), bench.settings.database_url, "not-of-a-known-shape"]
    said = json.dumps({"type": "log", "message": f"using {secrets[0]}"})
    end = {
        "exit": 69,
        "error": {"code": "reward_failed", "message": f"401 for Bearer {secrets[2]}", "retryable": False},
        "stderr": " ".join(secrets),
    }
    bench.script(attempts={"1": {"1": {"print": secrets[1]}, "2": {"raw": said}, "3": end}})
    job_id = bench.submit()
    bench.run()
    job = bench.job(job_id)
    assert job.status == "failed"
    shown = " ".join(
        [
            *(line.message for line in lines_of(bench, job_id)),
            json.dumps([event.data for event in bench.events(job_id)]),
            json.dumps(job.status_reason),
            json.dumps([attempt.reason for attempt in bench.attempts(job_id)]),
        ]
    )
    assert shown.count("[redacted]") >= 6
    password = secrets[1].split(":")[2].split("@")[0]
    assert [secret for secret in (secrets[0], password, secrets[2]) if secret in shown] == []
