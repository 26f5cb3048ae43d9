"""CPU of every process beside the trainer while a job trains and a client watches it, by the kernel's account.

    python bench/service_cpu.py --seconds 60

Runs `egrpo up`, submits the example job with very many steps, watches it on a terminal as a user does, and reads the
account over a window of the training phase. The trainer is a stand-in that computes nothing and tells of a step every
1.4 s, the example job's pace on two cores (`--trainer real`: the example job's own). Prints a Markdown table.
"""

import argparse
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from cpu_accounting import Usage, snapshot, table

ROOT = Path(__file__).parents[1]
READY_S = 300.0
SETTLE_STEPS = 3
MANY_STEPS = 10_000


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "quickstart.yaml")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the window")
    parser.add_argument("--trainer", choices=("paced", "real"), default="paced")
    parser.add_argument("--step-seconds", type=float, default=1.4, help="pace of the stand-in")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "service-cpu")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    env = {**os.environ, "EGRPO_HOME": str(options.output / "stack")}
    if options.trainer == "paced":
        command = [
            sys.executable,
            str(ROOT / "bench" / "paced_trainer.py"),
            "--step-seconds",
            str(options.step_seconds),
        ]
        env["EGRPO_TRAINER_COMMAND"] = json.dumps(command)
    with stack(env, options.output) as roots, watching_client(env, options) as client:
        wait_for_training(env)
        used, seconds = measured({**roots, "client": client.pid}, options.seconds)
    print(table(used, seconds))


def measured(roots: dict[str, int], seconds: float) -> tuple[dict[str, Usage], float]:
    """Returns what each group used in a window, and how long the window was."""
    began, before = time.monotonic(), snapshot(roots)
    time.sleep(seconds)
    ended, after = time.monotonic(), snapshot(roots)
    return {name: after[name] - before[name] for name in after}, ended - began


@contextmanager
def stack(env: dict[str, str], folder: Path) -> Iterator[dict[str, int]]:
    """Runs a local stack and yields the pids of its processes by name."""
    home = Path(env["EGRPO_HOME"])
    with (folder / "stack.log").open("wb") as log:
        process = subprocess.Popen([*egrpo(), "up"], env=env, stdout=log, stderr=log)
    try:
        yield {"stack": process.pid, **_processes_when_running(home / "stack.json", process)}
    finally:
        process.terminate()
        process.wait()


def _processes_when_running(path: Path, stack: subprocess.Popen[bytes]) -> dict[str, int]:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and stack.poll() is None:
        with suppress(FileNotFoundError, ValueError):
            state = json.loads(path.read_text())
            if state["status"] == "running":
                return {each["name"]: each["pid"] for each in state["processes"]}
        time.sleep(0.2)
    raise SystemExit(f"the stack did not start; see {path.parent.parent / 'stack.log'}")


@contextmanager
def watching_client(env: dict[str, str], options: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `egrpo submit --watch` on a terminal of its own, whose output goes to a file; cancels the job at the end."""
    document = yaml.safe_load(options.spec.read_text())
    document["training"] = {**(document.get("training") or {}), "steps": MANY_STEPS}
    spec = options.output / "spec.yaml"
    spec.write_text(yaml.safe_dump(document))
    terminal, inner = pty.openpty()
    command = [*egrpo(), "submit", str(spec), "--watch"]
    client = subprocess.Popen(command, env={**env, "TERM": "xterm"}, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    threading.Thread(target=_copy, args=(terminal, options.output / "client.log"), daemon=True).start()
    try:
        yield client
    finally:
        for job in jobs(env):
            subprocess.run([*egrpo(), "cancel", job["id"]], env=env, check=False, stdout=subprocess.DEVNULL)
        client.wait()


def _copy(terminal: int, target: Path) -> None:
    with target.open("wb") as file, suppress(OSError):  # A terminal whose last process has ended reads as an error.
        while data := os.read(terminal, 65536):
            file.write(data)


def wait_for_training(env: dict[str, str]) -> None:
    """Returns when the job has trained for a few steps, so that its start is not in the account."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if any(job["phase"] == "training" and job["progress"]["step"] >= SETTLE_STEPS for job in jobs(env)):
            return
        time.sleep(1)
    raise SystemExit("the job did not begin to train")


def jobs(env: dict[str, str]) -> list[dict[str, object]]:
    """Returns the stack's jobs."""
    listed = subprocess.run([*egrpo(), "list", "--json"], env=env, check=True, capture_output=True)
    return list(json.loads(listed.stdout))


def egrpo() -> list[str]:
    """Returns the command line of the `egrpo` command in this environment."""
    return [sys.executable, "-m", "egrpo_client.cli"]


if __name__ == "__main__":
    main()
