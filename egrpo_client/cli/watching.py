"""`egrpo watch`: a job to its end."""

import json
import sys

from egrpo_client.cli.output import errors, say
from egrpo_client.cli.parameters import AsJSON, JobId
from egrpo_client.cli.progress import job_view, summary_line
from egrpo_client.errors import JobEndedError
from egrpo_client.exchange import FINAL_STATUSES, JSON
from egrpo_client.sync.client import Client
from egrpo_client.sync.follow import follow


def watch(job_id: JobId, as_json: AsJSON = False) -> None:
    """Watch a job to its end: step, reward, time left. With --json: its events, one a line."""
    with Client.from_environment() as client:
        watch_to_its_end(client, job_id, as_json=as_json)


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


def watch_to_its_end(client: Client, job_id: str, *, as_json: bool) -> None:
    """Shows a job to its end: progress and a summary, or its events.

    Raises:
        JobEndedError: it failed or was cancelled.
        KeyboardInterrupt: somebody has seen enough; they are told that the job goes on.
    """
    try:
        _show_to_its_end(client, job_id, as_json=as_json)
    except KeyboardInterrupt:
        say(f"No longer watched; the job goes on. Again with: egrpo watch {job_id}", errors)
        raise


def _show_to_its_end(client: Client, job_id: str, *, as_json: bool) -> None:
    if not as_json:
        say(summary_line(watch_job(client, job_id)))
        return
    job: JSON = {}
    for update in follow(client, job_id):
        job = update.job
        for event in update.events:
            sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
            sys.stdout.flush()
    _require_success(job)


def _require_success(job: JSON) -> JSON:
    if job["status"] in FINAL_STATUSES - {"succeeded"}:
        raise JobEndedError(summary_line(job), job)
    return job
