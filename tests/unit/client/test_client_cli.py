"""The command line without a service: its errors, exit codes, and what it makes of a job's events."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from egrpo_client.cli import exit_code, main
from egrpo_client.cli.output import duration_text, print_table, say
from egrpo_client.cli.progress import LineView, LiveView
from egrpo_client.errors import ApiError, ClientError, NotConfiguredError, SpecFileError, UnreachableError
from egrpo_client.watching import Update

RUNNING = {
    "id": "job_1",
    "status": "running",
    "phase": "training",
    "progress": {"step": 3, "total_steps": 120, "steps_per_second": 0.62, "eta_seconds": 190.2},
}
EVENTS = [
    {"seq": 1, "type": "metric", "data": {"step": 0, "values": {"eval_reward": 0.5}}},
    {"seq": 2, "type": "metric", "data": {"step": 3, "values": {"reward_mean": 0.41, "eval_reward": 0.62}}},
    {"seq": 3, "type": "log", "data": {"level": "warning", "message": "memory [is] low"}},
]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ApiError(422, {}), 2),
        (ApiError(401, {}), 4),
        (ApiError(404, {}), 3),
        (ApiError(409, {}), 5),
        (ApiError(500, {}), 1),
        (UnreachableError(""), 6),
        (NotConfiguredError(""), 4),
        (SpecFileError(""), 2),
        (ClientError(""), 1),
    ],
)
def test_exit_codes(error: ClientError, code: int) -> None:
    assert exit_code(error) == code


def test_lines_show_step_reward_and_time_left() -> None:
    out = io.StringIO()
    with LineView(Console(file=out, width=40)) as view:
        view.show(Update(RUNNING, EVENTS))
    assert out.getvalue().splitlines() == [
        "warning: memory [is] low",
        "running training  step 3/120  reward 0.410  eval 0.620 (+0.120)  0.62 steps/s, 3:10 left",
    ]


def test_lines_are_rare_while_nothing_changes() -> None:
    out = io.StringIO()
    with LineView(Console(file=out)) as view:
        for _ in range(5):
            view.show(Update(RUNNING, []))
        view.show(Update({**RUNNING, "phase": "evaluating"}, []))
    assert len(out.getvalue().splitlines()) == 2


def test_bar_shows_step_reward_and_time_left() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=160, force_terminal=True)) as view:
        view.show(Update(RUNNING, EVENTS))
    for part in ("training", "step 3/120", "reward 0.410", "eval 0.620 (+0.120)", "3:10 left", "memory [is] low"):
        assert part in out.getvalue()


def test_bar_survives_a_job_without_progress() -> None:
    with LiveView(Console(file=io.StringIO(), force_terminal=True)) as view:
        view.show(Update({"id": "job_1", "status": "queued", "phase": None, "progress": None}, []))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (190.2, "3:10"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("is_terminal", "lines"), [(False, 4), (True, 8)])
def test_a_pipe_gets_whole_lines_and_a_terminal_folded_tables(is_terminal: bool, lines: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=40, force_terminal=is_terminal, color_system=None)
    say("x" * 60, console)
    print_table(("NAME", "REASON", "CREATED"), [("a" * 20, "b" * 60, "c"), ("a", "b", None)], console)
    assert len(out.getvalue().splitlines()) == lines
    assert "x" * 60 in out.getvalue(), "a terminal breaks it itself, so that it is copied as one"
    assert ("a" * 20 + "  " + "b" * 60 + "  c" in out.getvalue()) is not is_terminal


def test_error_without_a_service_is_a_sentence_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    for name in ("EGRPO_URL", "EGRPO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EGRPO_HOME", f"{tmp_path}/none")
    monkeypatch.setattr(sys, "argv", ["egrpo", "list"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 4
    assert "egrpo up" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["egrpo", "list", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().err)["code"] == "not_configured"


def test_client_works_without_the_servers_and_the_trainer() -> None:
    code = "import sys, egrpo_client.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {"api", "worker", "jobs", "egrpo"}
    assert not {name.partition(".")[0] for name in loaded} & {*ours, "torch", "psutil", "minio", "celery", "sqlalchemy"}
