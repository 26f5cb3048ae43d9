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

from worker.protocol import LogEvent, ProgressEvent, TrainerEvent
from worker.trainer import Trainer, trainer_environment


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
        signal.signal(signal.SIGTERM, lambda *_: (emit(type="log", message="stopping"), os._exit(75)))
        progress(1)
        time.sleep(60)
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
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


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
        def stuck_in_a_thread(): time.sleep(60)
        threading.Thread(target=stuck_in_a_thread, daemon=True).start()
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
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


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
