"""The commands about jobs, models and rewards: all of them talk to the service over HTTP."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from egrpo_client.cli.output import (
    console,
    print_json,
    print_table,
    progress_text,
    reason_text,
    status_text,
    time_text,
)
from egrpo_client.cli.progress import job_view, summary_line
from egrpo_client.client import FINAL_STATUSES, JSON, Client
from egrpo_client.download import Downloaded, download_job
from egrpo_client.errors import JobEndedError
from egrpo_client.follow import Update, follow
from egrpo_client.spec_file import read_spec

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id: job_…", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    for command in (submit, show, watch, logs, download, cancel, pause, resume, attempts, models, rewards):
        app.command()(command)
    app.command("list")(list_jobs)


def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="The job, as YAML or JSON.", show_default=False)],
    seed: Annotated[int | None, typer.Option(help="Replaces training.seed.", show_default=False)] = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="Watch the job to its end.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Submit a job."""
    body = read_spec(spec, seed=seed)
    with Client.from_environment() as client:
        job = client.submit(body)
        if as_json:
            print_json(job)
        else:
            console.print(f"{job['id']} {job['status']}", markup=False)
        if watch_it:
            _watch(client, job["id"], as_json=as_json)


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="How many jobs, newest first.")] = 20,
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.", show_default=False)] = None,
    as_json: AsJSON = False,
) -> None:
    """List jobs."""
    with Client.from_environment() as client:
        jobs = list(client.jobs(limit=limit, status=status))
    if as_json:
        print_json(jobs)
        return
    rows = [_row(job) for job in jobs]
    print_table(("ID", "NAME", "STATUS", "PHASE", "STEP", "CREATED"), rows)


def show(job_id: JobId, as_json: AsJSON = False) -> None:
    """Show a job: where it is, why, and what it made."""
    with Client.from_environment() as client:
        job = client.job(job_id)
        checkpoints = list(client.checkpoints(job_id))
    if as_json:
        print_json({**job, "checkpoints": checkpoints})
        return
    for name, value in _details(job):
        console.print(f"{name:<12} {value}", markup=False, soft_wrap=True)
    if checkpoints:
        console.print()
        rows = [(each["id"], each["kind"], each["step"], _number(each.get("eval_reward"))) for each in checkpoints]
        print_table(("CHECKPOINT", "KIND", "STEP", "EVAL REWARD"), rows)


def watch(job_id: JobId, as_json: AsJSON = False) -> None:
    """Watch a job to its end: step, reward, time left. With --json: its events, one a line."""
    with Client.from_environment() as client:
        _watch(client, job_id, as_json=as_json)


def logs(
    job_id: JobId,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Print a job's log."""
    with Client.from_environment() as client:
        if follow_it:
            for update in follow(client, job_id):
                _print_logs(update.events, as_json=as_json)
            return
        after = 0
        while events := client.events(job_id, after=after):
            _print_logs(events, as_json=as_json)
            after = events[-1]["seq"]


def download(
    job_id: JobId,
    output: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="JOB")] = None,
    as_json: AsJSON = False,
) -> None:
    """Fetch a job's adapter, report and pictures, each checked against its sha256."""

    def told(file: Downloaded) -> None:
        if not as_json:
            console.print(f"{file.path}  {file.size_bytes} bytes  sha256 {file.sha256[:12]}…", markup=False)

    with Client.from_environment() as client:
        files = download_job(client, job_id, output or Path(job_id), told)
    if as_json:
        print_json([{"path": str(f.path), "size_bytes": f.size_bytes, "sha256": f.sha256} for f in files])


def cancel(job_id: JobId, as_json: AsJSON = False) -> None:
    """Cancel a job; its last checkpoint is kept."""
    with Client.from_environment() as client:
        _print_status(client.cancel(job_id), as_json=as_json)


def pause(job_id: JobId, as_json: AsJSON = False) -> None:
    """Pause a job: it commits a checkpoint and frees its worker."""
    with Client.from_environment() as client:
        _print_status(client.pause(job_id), as_json=as_json)


def resume(job_id: JobId, as_json: AsJSON = False) -> None:
    """Queue a paused job again; it goes on from its last checkpoint."""
    with Client.from_environment() as client:
        _print_status(client.resume(job_id), as_json=as_json)


def attempts(job_id: JobId, as_json: AsJSON = False) -> None:
    """List a job's attempts: which worker, from which step, and how each ended."""
    with Client.from_environment() as client:
        entries = list(client.attempts(job_id))
    if as_json:
        print_json(entries)
        return
    rows = [
        (
            e["number"],
            e["worker"],
            e["resumed_from_step"],
            e["last_step"],
            e["outcome"],
            (e["reason"] or {}).get("code"),
        )
        for e in entries
    ]
    print_table(("ATTEMPT", "WORKER", "FROM STEP", "LAST STEP", "OUTCOME", "REASON"), rows)


def models(as_json: AsJSON = False) -> None:
    """List the base models that a job may name."""
    with Client.from_environment() as client:
        entries = client.models()
    if as_json:
        print_json(entries)
        return
    rows = [(m["id"], m.get("family"), f"{m.get('width')}×{m.get('height')}", m.get("description")) for m in entries]
    print_table(("ID", "FAMILY", "SIZE", "DESCRIPTION"), rows)


def rewards(as_json: AsJSON = False) -> None:
    """List the rewards that a job may name."""
    with Client.from_environment() as client:
        entries = client.rewards()
    if as_json:
        print_json(entries)
        return
    rows = [(entry["type"], entry.get("range"), entry.get("description")) for entry in entries]
    print_table(("TYPE", "RANGE", "DESCRIPTION"), rows)


def watch_job(client: Client, job_id: str) -> JSON:
    """Shows a job to its end and returns it.

    Raises:
        JobEndedError: it failed or was cancelled.
    """
    job: JSON = {}
    with job_view() as view:
        for update in follow(client, job_id):
            view.show(update)
            job = update.job
    return _require_success(job)


def _watch(client: Client, job_id: str, *, as_json: bool) -> None:
    if not as_json:
        console.print(summary_line(watch_job(client, job_id)), markup=False)
        return
    update = Update({}, [])
    for update in follow(client, job_id):
        for event in update.events:
            sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
            sys.stdout.flush()
    _require_success(update.job)


def _require_success(job: JSON) -> JSON:
    if job["status"] in FINAL_STATUSES - {"succeeded"}:
        raise JobEndedError(summary_line(job))
    return job


def _print_status(job: JSON, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        console.print(f"{job['id']} {job['status']}", markup=False)


def _row(job: JSON) -> tuple[Any, ...]:
    status = status_text(job["status"])
    return job["id"], job.get("name"), status, job.get("phase"), progress_text(job), time_text(job.get("created_at"))


def _details(job: JSON) -> list[tuple[str, str]]:
    details = [
        ("id", job["id"]),
        ("name", job.get("name")),
        ("status", job["status"]),
        ("phase", job.get("phase")),
        ("reason", reason_text(job)),
        ("step", progress_text(job)),
        ("attempt", job.get("attempt")),
        ("base model", (job.get("spec") or {}).get("base_model")),
        ("created", time_text(job.get("created_at"))),
        ("started", time_text(job.get("started_at"))),
        ("finished", time_text(job.get("finished_at"))),
    ]
    return [(name, str(value)) for name, value in details if value not in (None, "")]


def _print_logs(events: list[JSON], *, as_json: bool) -> None:
    for event in events:
        if event["type"] != "log":
            continue
        data = event["data"]
        line = f"{time_text(event.get('created_at'))} {data.get('level', 'info'):<7} {data.get('message', '')}"
        sys.stdout.write((json.dumps(event, ensure_ascii=False) if as_json else line) + "\n")
    sys.stdout.flush()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
