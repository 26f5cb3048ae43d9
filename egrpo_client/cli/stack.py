"""The commands about the local stack: `up`, `down`, `status`.

The servers come with the extra `local`; its packages are imported only when one of these commands runs, so that the
client works without them.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egrpo_client.cli.output import print_json, print_table, say
from egrpo_client.connection import local_home

if TYPE_CHECKING:
    from egrpo_client.stack.folder import StackFolder

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Home = Annotated[
    Path | None, typer.Option(help="The stack's data folder.", show_default="$EGRPO_HOME, else ~/.local/share/egrpo")
]
DETACHED_START_TIMEOUT_S = 120.0


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    for command in (up, down, status, quickstart):
        app.command()(command)


def up(
    home: Home = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.", show_default="8321 or a free one")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is ready; stop it with `down`.")] = False,
) -> None:
    """Start a local stack: PostgreSQL, Valkey, SeaweedFS, API and worker, on loopback. Ctrl-C stops it."""
    folder = _folder(home)
    if detach:
        _start_detached(folder, port)
    else:
        _run(folder, port)


def down(home: Home = None) -> None:
    """Stop the local stack; its data is kept."""
    from egrpo_client.stack.processes import stop_all, stop_process

    folder = _folder(home)
    state = folder.load()
    living = state.living()
    supervised = state.supervisor is not None and state.supervisor.find() is not None and folder.is_held()
    if not supervised and not living:
        say(f"No stack runs in {folder.home}")
        return
    if supervised and state.supervisor is not None:
        stop_process(state.supervisor)
    stop_all([identity for identity in living if identity.find() is not None])
    state = folder.load()
    state.status = "stopped"
    state.processes = []
    folder.save(state)
    say(f"stopped; its data is kept in {folder.home}")


def status(home: Home = None, as_json: AsJSON = False) -> None:
    """Show whether the local stack runs, and its processes. Exit code 1 when it does not."""
    folder = _folder(home)
    state = folder.load()
    is_running = state.status == "running" and folder.is_held()
    processes = [{"name": p.name, "pid": p.pid, "is_running": p.find() is not None} for p in state.processes]
    if as_json:
        url = state.url if is_running else None
        print_json({"home": str(folder.home), "is_running": is_running, "url": url, "processes": processes})
    else:
        say(f"{'running at ' + str(state.url) if is_running else 'stopped'}   {folder.home}")
        if processes:
            rows = [(p["name"], p["pid"], "running" if p["is_running"] else "ended") for p in processes]
            print_table(("PROCESS", "PID", "STATE"), rows)
    raise typer.Exit(0 if is_running else 1)


def quickstart(
    spec: Annotated[Path, typer.Option(help="The job's spec.")] = Path("examples/quickstart.yaml"),
    output: Annotated[Path, typer.Option(help="Folder for what the job makes.")] = Path("out/quickstart"),
    seed: Annotated[int | None, typer.Option(help="Replaces training.seed.", show_default=False)] = None,
    home: Annotated[
        Path | None, typer.Option(help="The stack's data folder.", show_default="$EGRPO_HOME, else out/stack")
    ] = None,
) -> None:
    """Run the example job on a local stack, from submission to adapter, and stop the stack."""
    folder = _folder(home or (local_home() if "EGRPO_HOME" in os.environ else Path("out/stack")))
    from egrpo_client.quickstart import run_quickstart, summary
    from egrpo_client.stack.signals import StopRequestedError

    try:
        result = run_quickstart(spec, output, folder, seed=seed, told=_told)
    except StopRequestedError as error:
        raise typer.Exit(130) from error
    _told(summary(result, output))


def _folder(home: Path | None) -> "StackFolder":
    try:
        from egrpo_client.stack.folder import StackFolder
    except ModuleNotFoundError as error:
        say(f"The local stack needs {error.name}. Run: pip install 'egrpo[local]'")
        raise typer.Exit(1) from error
    return StackFolder(home or local_home())


def _run(folder: "StackFolder", port: int | None) -> None:
    from egrpo_client.stack.local import LocalStack
    from egrpo_client.stack.signals import StopRequestedError, StopSignals

    signals = StopSignals()
    stack = LocalStack(folder, signals, api_port=port, told=_told)
    started_at = time.monotonic()
    try:
        with signals.installed(), stack.running() as state:
            _told(f"ready after {time.monotonic() - started_at:.1f} s at {state.url}; data and logs in {folder.home}")
            _told("submit a job with: egrpo submit SPEC.yaml --watch     stop with Ctrl-C")
            stack.supervise()
    except StopRequestedError:
        _told("stopped")


def _start_detached(folder: "StackFolder", port: int | None) -> None:
    folder.prepare()
    argv = [sys.executable, "-m", "egrpo_client.cli", "up", "--home", str(folder.home)]
    argv += ["--port", str(port)] if port is not None else []
    log = folder.logs / "stack.log"
    with log.open("ab") as file:
        begin = file.tell()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    deadline = time.monotonic() + DETACHED_START_TIMEOUT_S
    while child.poll() is None and time.monotonic() < deadline:
        state = folder.load()
        if state.status == "running" and state.supervisor is not None and state.supervisor.pid == child.pid:
            say(f"ready at {state.url}; stop it with: egrpo down")
            return
        time.sleep(0.1)
    say(log.read_bytes()[begin:].decode(errors="replace").strip())
    raise typer.Exit(1)


def _told(line: str) -> None:
    say(line)
