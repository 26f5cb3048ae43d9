"""The trainer as a process: environment, events, signals, and that it never outlives anything."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from worker.command import command_for
from worker.protocol import LogEvent, ProgressEvent, TrainerEvent
from worker.trainer import Trainer, TrainerExit, trainer_environment


def write_script(folder: Path, body: str) -> list[str]:
    script = folder / "script.py"
    prelude = """
        import json, os, signal, subprocess, sys, time
        out = os.fdopen(int(sys.argv[sys.argv.index("--events-fd") + 1]), "w", buffering=1)
        emit = lambda **event: out.write(json.dumps(event) + "\\n")
        progress = lambda step: emit(type="progress", step=step, total_steps=9)
    """
    script.write_text(textwrap.dedent(prelude) + textwrap.dedent(body))
    return [sys.executable, str(script)]


def start(folder: Path, body: str) -> tuple[Trainer, list[TrainerEvent]]:
    events: list[TrainerEvent] = []
    trainer = Trainer(write_script(folder, body), folder, events.append)
    trainer.start()
    return trainer, events


def wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Returns whether a process runs; one that has ended and was not asked for its status yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_every_event_arrives_in_order_and_bad_lines_do_not_stop_the_reading(tmp_path: Path) -> None:
    trainer, events = start(
        tmp_path,
        """
        for step in range(500):
            progress(step)
        out.write("not json\\n[1]\\n{\\"type\\": \\"new\\"}\\n" + "x" * 3_000_000 + "\\n")
        emit(type="log", level="info", message="after")
        """,
    )
    exit_ = trainer.finish()
    assert (exit_.code, exit_.signal) == (0, None)
    assert [event.step for event in events if isinstance(event, ProgressEvent)] == list(range(500))
    assert isinstance(events[-1], LogEvent)


def test_sigterm_reaches_the_trainer_only_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    trainer, events = start(
        tmp_path,
        """
        stopping = []
        signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
        progress(1)
        while not stopping:
            time.sleep(0.01)
        emit(type="log", message="stopping")
        os._exit(75)
        """,
    )
    wait_for(lambda: events)
    assert not trainer.exited()
    trainer.terminate()
    assert trainer.finish().code == 75
    assert isinstance(events[-1], LogEvent)


def test_children_of_the_trainer_die_with_it(tmp_path: Path) -> None:
    trainer, events = start(
        tmp_path,
        """
        child = subprocess.Popen(["sleep", "300"], pass_fds=[out.fileno()])
        progress(child.pid)
        os._exit(3)
        """,
    )
    exit_ = trainer.finish()
    assert exit_.code == 3
    assert isinstance(events[0], ProgressEvent)
    child = events[0].step
    wait_for(lambda: not is_alive(child))


def test_kill_ends_the_group_and_names_the_signal(tmp_path: Path) -> None:
    trainer, events = start(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN); progress(1); time.sleep(60)")
    wait_for(lambda: events)
    trainer.terminate()
    time.sleep(0.1)
    assert not trainer.exited()
    trainer.kill()
    exit_ = trainer.finish()
    assert (exit_.code, exit_.signal) == (None, signal.SIGKILL)
    assert str(exit_) == "ended by SIGKILL"


def test_abort_leaves_the_stacks_of_all_threads_in_the_log(tmp_path: Path) -> None:
    trainer, events = start(
        tmp_path,
        """
        import threading
        begun = threading.Event()
        def stuck_in_a_thread(): begun.set(); time.sleep(60)
        threading.Thread(target=stuck_in_a_thread, daemon=True).start()
        begun.wait()
        def stuck_in_main(): progress(1); time.sleep(60)
        stuck_in_main()
        """,
    )
    wait_for(lambda: events)
    trainer.dump_and_abort()
    exit_ = trainer.finish()
    assert exit_.signal == signal.SIGABRT
    assert "stuck_in_main" in exit_.stderr_tail
    assert "stuck_in_a_thread" in exit_.stderr_tail


def rank_that(tmp_path: Path, on_abort: str = "") -> str:
    """Returns the body of a launcher of two ranks, which say by a file that they are up."""
    (tmp_path / "rank.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        f"{on_abort}\n"
        "def stuck():\n"
        "    pathlib.Path(__file__).with_name(f'up-{os.getpid()}').touch()\n"
        "    time.sleep(60)\n"
        "stuck()\n"
    )
    return f"""
        ranks = [subprocess.Popen([sys.executable, {str(tmp_path / "rank.py")!r}]) for _ in range(2)]
        progress(1)
        sys.exit(max(rank.wait() != 0 for rank in ranks))
    """


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a rank may need longer than a worker waits for its stacks; what is tested is their order."""
    monkeypatch.setattr("worker.trainer._LAST_STACK_S", 60)


def aborted(tmp_path: Path, body: str) -> TrainerExit:
    trainer = Trainer(write_script(tmp_path, body), tmp_path, [].append, is_launcher=True)
    trainer.start()
    wait_for(lambda: len(list(tmp_path.glob("up-*"))) == 2)
    trainer.dump_and_abort()
    return trainer.finish()


@pytest.mark.usefixtures("patient")
def test_the_ranks_of_a_launcher_print_their_stacks_and_end_it(tmp_path: Path) -> None:
    exit_ = aborted(tmp_path, rank_that(tmp_path))
    assert exit_.code == 1
    assert exit_.stderr_tail.count("in stuck") == 2


@pytest.mark.usefixtures("patient")
def test_a_rank_is_told_to_print_its_stacks_when_the_one_before_has(tmp_path: Path) -> None:
    slowly = (
        "def say(*_):\n"
        "    os.write(2, b'begin ')\n"
        "    time.sleep(0.1)\n"
        "    os.write(2, b'end ')\n"
        "    os._exit(1)\n"
        "signal.signal(signal.SIGABRT, say)"
    )
    assert aborted(tmp_path, rank_that(tmp_path, slowly)).stderr_tail.split() == ["begin", "end"] * 2


def test_a_rank_in_a_session_of_its_own_dies_with_its_launcher(tmp_path: Path) -> None:
    body = """
        launch = [sys.executable, "-I", "-S", sys.argv[sys.argv.index("--launch") + 1], "leader"]
        rank = subprocess.Popen([*launch, "sleep", "60"], start_new_session=True)
        emit(type="log", message=str(rank.pid))
        rank.wait()
    """
    events: list[TrainerEvent] = []
    command = [*write_script(tmp_path, body), "--launch", command_for(["x"], 2)[-3]]
    trainer = Trainer(command, tmp_path, events.append, is_launcher=True)
    trainer.start()
    wait_for(lambda: events)
    assert isinstance(events[0], LogEvent)
    rank = psutil.Process(int(events[0].message))
    wait_for(lambda: rank.name() == "sleep")
    trainer.kill()
    assert trainer.finish().signal == signal.SIGKILL
    wait_for(lambda: not is_alive(rank.pid))


def test_the_trainer_dies_when_its_worker_is_killed(tmp_path: Path) -> None:
    command = write_script(tmp_path, "progress(os.getpid()); time.sleep(60)")
    parent = f"""
import sys, time
from pathlib import Path
from worker.trainer import Trainer
trainer = Trainer({command!r}, Path({str(tmp_path)!r}), lambda event: print(event.step, flush=True))
trainer.start()
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert psutil.Process(pid).is_running()
    process.kill()
    process.wait()
    process.stdout.close()
    wait_for(lambda: not is_alive(pid))


def test_no_credentials_reach_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "EGRPO_DATABASE_URL": "postgresql://secret",
        "EGRPO_BROKER_URL": "redis://secret",
        "EGRPO_S3_SECRET_KEY": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HF_TOKEN": "secret",
        "PGPASSWORD": "secret",
        "DATABASE_URL": "postgresql://secret",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trainer, _ = start(tmp_path, "print(json.dumps(dict(os.environ)))")
    shown = trainer.finish().stderr_tail
    assert "secret" not in shown
    assert "OMP_NUM_THREADS" in shown


def test_the_environment_is_an_allow_list() -> None:
    service = {"EGRPO_CACHE": "/cache", "EGRPO_S3_ENDPOINT": "s3"}
    seen = trainer_environment({"PATH": "/bin", "SOMETHING_NEW": "x", "HF_HOME": "/hf", "HF_HUB_TOKEN": "t", **service})
    assert seen == {
        "PATH": "/bin",
        "HF_HOME": "/hf",
        "EGRPO_CACHE": "/cache",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
    }


def test_a_slow_consumer_does_not_hold_up_the_trainer(tmp_path: Path) -> None:
    """The pipe takes a mebibyte while the reader is busy, which is thousands of events; unasked it takes 64 KiB."""
    gate = threading.Event()
    events: list[TrainerEvent] = []

    def slow(event: TrainerEvent) -> None:
        gate.wait()
        events.append(event)

    trainer = Trainer(write_script(tmp_path, "[progress(step) for step in range(3000)]"), tmp_path, slow)
    trainer.start()
    wait_for(trainer.exited, 60)
    gate.set()
    assert trainer.finish().code == 0
    assert len(events) == 3000


def test_the_supervisor_imports_no_torch() -> None:
    code = "import sys, worker.__main__; assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": os.environ["PATH"]})
