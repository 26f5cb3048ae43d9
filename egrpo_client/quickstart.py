"""The example job from submission to adapter: the local stack, one job, live progress, and what came out of it."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from egrpo_client.cli.watching import watch_job
from egrpo_client.connection import Connection
from egrpo_client.exchange import JSON
from egrpo_client.spec_file import read_spec
from egrpo_client.stack.folder import StackFolder, StackState
from egrpo_client.stack.local import LocalStack
from egrpo_client.stack.signals import StopSignals
from egrpo_client.sync.client import Client
from egrpo_client.sync.download import download_job

Told = Callable[[str], None]


def run_quickstart(spec: Path, output: Path, folder: StackFolder, *, seed: int | None, told: Told) -> JSON:
    """Runs the example and returns its report, the job's base model and the wall time beside it.

    Args:
        spec: the job's spec file.
        output: folder that receives report, pictures and adapter.
        folder: data folder of the stack; one that runs there already is used and left running.
        seed: replaces the spec's training seed.
        told: called with each line for the user.

    Raises:
        ClientError: the stack does not start, the spec is refused, or the job does not succeed.
    """
    started_at = time.monotonic()
    body = read_spec(spec, seed=seed)
    with _service(folder, told) as connection, Client.of(connection) as client:
        told(f"service ready after {time.monotonic() - started_at:.1f} s at {connection.url}")
        submitted = client.submit(body)
        told(f"submitted {submitted.id}")
        job = watch_job(client, submitted.id)
        shutil.rmtree(output / "adapter", ignore_errors=True)  # That of an earlier run may hold other files.
        download_job(client, job["id"], output)
        base_model = _base_model(client, job)
    report = json.loads((output / "report.json").read_text())
    return {"report": report, "job": job, "base_model": base_model, "seconds": time.monotonic() - started_at}


def summary(result: JSON, output: Path) -> str:
    """Returns what the run achieved, and how to use the adapter, for a reader."""
    report = result["report"]
    low, high = report["paired_delta_ci95"]
    reward = (report["eval_reward_before"], report["eval_reward_after"])
    strict = (report["strict_accuracy_before"], report["strict_accuracy_after"])
    lines = [
        "",
        "                    before     after",
        f"eval reward        {reward[0]:7.3f}   {reward[1]:7.3f}   {reward[1] - reward[0]:+.3f}"
        f"  (95 % interval {low:+.3f} to {high:+.3f}, {report['num_images']} images)",
        f"strict accuracy    {strict[0]:7.1%}   {strict[1]:7.1%}   {100 * (strict[1] - strict[0]):+.1f} points",
        f"time               {result['seconds']:.0f} s, {report['training_seconds']:.0f} s of them training",
        "",
        f"{output}/  report.json  contact_sheet.png  reward_curve.png  adapter/",
        "",
        "Use the adapter with diffusers:",
        "    from diffusers import FluxPipeline",
        f"    pipeline = FluxPipeline.from_pretrained({result['base_model']!r})",
        f"    pipeline.load_lora_weights({str(output / 'adapter')!r})",
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def _service(folder: StackFolder, told: Told) -> Iterator[Connection]:
    """Yields a running service: the one in this folder, or one that is started and stopped here."""
    running = _running(folder)
    if running is not None:
        told(f"using the local stack that runs in {folder.home}")
        yield running
        return
    signals = StopSignals()
    with signals.installed(), LocalStack(folder, signals, told=told).running() as state:
        yield _connection(state)


def _running(folder: StackFolder) -> Connection | None:
    state = folder.load()
    return _connection(state) if state.status == "running" and folder.is_held() else None


def _connection(state: StackState) -> Connection:
    assert state.url is not None
    assert state.api_key is not None
    return Connection(state.url, state.api_key)


def _base_model(client: Client, job: JSON) -> str:
    """Returns what `from_pretrained` takes: a repository, or the folder of a model that comes with the package."""
    base = job["base_model"]
    for model in client.list_models():
        if model["id"] == base and model["repo"]:
            return str(model["repo"])
    code = "import sys; from egrpo.catalogue import MODELS; print(MODELS[sys.argv[1]].folder)"
    done = subprocess.run([sys.executable, "-c", code, base], capture_output=True, text=True, check=False)
    folder = Path(done.stdout.strip() or base)
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
