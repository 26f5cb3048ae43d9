"""The commands about jobs: all of them talk to the service over HTTP."""

from pathlib import Path
from typing import Annotated, Any

import typer

from egrpo_client.cli.answers import say_downloaded
from egrpo_client.cli.answers import show as show_answer
from egrpo_client.cli.logs import logs
from egrpo_client.cli.output import print_json, print_table, progress_text, reason_text, say, status_text, time_text
from egrpo_client.cli.parameters import AsJSON, JobId, SpecFile
from egrpo_client.cli.watching import watch, watch_to_its_end
from egrpo_client.drafts import Downloaded
from egrpo_client.exchange import JSON
from egrpo_client.models import Status
from egrpo_client.spec_file import read_spec
from egrpo_client.sync.client import Client
from egrpo_client.sync.download import download_job


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    for command in (submit, validate, show, watch, logs, download, cancel, pause, resume, retry, attempts):
        app.command()(command)
    app.command("list")(list_jobs)


def submit(
    spec: SpecFile,
    seed: Annotated[int | None, typer.Option(help="Replaces training.seed.", show_default=False)] = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="Watch the job to its end.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Submit a job."""
    body = read_spec(spec, seed=seed)
    with Client.from_environment() as client:
        job = client.create_job(body)
        if as_json:
            print_json(job)
        else:
            say(f"{job['id']} {job['status']}")
        if watch_it:
            watch_to_its_end(client, job["id"], as_json=as_json)


def validate(spec: SpecFile, as_json: AsJSON = False) -> None:
    """Say what a job would do and take; nothing is queued."""
    with Client.from_environment() as client:
        show_answer(client.validate_job(read_spec(spec)), as_json=as_json)


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="How many jobs, newest first.")] = 20,
    status: Annotated[Status | None, typer.Option(help="Only jobs of this status.", show_default=False)] = None,
    as_json: AsJSON = False,
) -> None:
    """List jobs."""
    with Client.from_environment() as client:
        jobs = list(client.list_jobs(limit=limit, status=status and [status]))
    if as_json:
        print_json(jobs)
        return
    rows = [_row(job) for job in jobs]
    print_table(("ID", "NAME", "STATUS", "PHASE", "STEP", "CREATED"), rows)


def show(job_id: JobId, as_json: AsJSON = False) -> None:
    """Show a job: where it is, why, and what it made."""
    with Client.from_environment() as client:
        job = client.get_job(job_id)
        checkpoints = list(client.list_checkpoints(job_id))
    if as_json:
        print_json({**job, "checkpoints": checkpoints})
        return
    for name, value in _details(job):
        say(f"{name:<12} {value}")
    if checkpoints:
        say("")
        rows = [(each["id"], each["kind"], each["step"], _number(each.get("eval_reward"))) for each in checkpoints]
        print_table(("CHECKPOINT", "KIND", "STEP", "EVAL REWARD"), rows)


def download(
    job_id: JobId,
    output: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="JOB")] = None,
    as_json: AsJSON = False,
) -> None:
    """Fetch a job's adapter, report and pictures, each checked against its sha256."""

    def told(file: Downloaded) -> None:
        if not as_json:
            say_downloaded(file)

    with Client.from_environment() as client:
        files = download_job(client, job_id, output or Path(job_id), told)
    if as_json:
        print_json([{"path": str(f.path), "size_bytes": f.size_bytes, "sha256": f.sha256} for f in files])


def cancel(job_id: JobId, as_json: AsJSON = False) -> None:
    """Cancel a job; its last checkpoint is kept."""
    with Client.from_environment() as client:
        _print_status(client.cancel_job(job_id), as_json=as_json)


def pause(job_id: JobId, as_json: AsJSON = False) -> None:
    """Pause a job: it commits a checkpoint and frees its worker."""
    with Client.from_environment() as client:
        _print_status(client.pause_job(job_id), as_json=as_json)


def resume(job_id: JobId, as_json: AsJSON = False) -> None:
    """Queue a paused job again; it goes on from its last checkpoint."""
    with Client.from_environment() as client:
        _print_status(client.resume_job(job_id), as_json=as_json)


def retry(job_id: JobId, as_json: AsJSON = False) -> None:
    """Queue a job again that failed or was cancelled; it goes on from its last checkpoint."""
    with Client.from_environment() as client:
        _print_status(client.retry_job(job_id), as_json=as_json)


def attempts(job_id: JobId, as_json: AsJSON = False) -> None:
    """List a job's attempts: which worker, from which step, and how each ended."""
    with Client.from_environment() as client:
        entries = list(client.list_attempts(job_id))
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
            e["reason"]["code"] if e["reason"] else None,
        )
        for e in entries
    ]
    print_table(("ATTEMPT", "WORKER", "FROM STEP", "LAST STEP", "OUTCOME", "REASON"), rows)


def _print_status(job: JSON, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        say(f"{job['id']} {job['status']}")


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


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
