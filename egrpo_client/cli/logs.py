"""`egrpo logs`: what the trainer reports, or everything that was printed."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from egrpo_client.cli.answers import print_line
from egrpo_client.cli.output import time_text
from egrpo_client.cli.parameters import AsJSON, JobId
from egrpo_client.exchange import JSON
from egrpo_client.models import LogLineBody
from egrpo_client.sync.client import Client
from egrpo_client.sync.follow import follow


def logs(
    job_id: JobId,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also what the trainer's processes print.")] = False,
    tail: Annotated[
        int | None, typer.Option(min=1, max=200, help="With --all: begin so many lines before the end.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Print a job's log."""
    with Client.from_environment() as client:
        if everything or tail is not None:
            for line in client.job(job_id).logs(follow=follow_it, tail=tail):
                print_line(line) if as_json else _print_log_line(line)
            return
        if follow_it:
            for update in follow(client, job_id):
                _print_logs(update.events, as_json=as_json)
            return
        after = 0
        while events := client.list_events(job_id, after=after)["data"]:
            _print_logs(events, as_json=as_json)
            after = events[-1]["seq"]


def _print_logs(events: Sequence[JSON], *, as_json: bool) -> None:
    for event in events:
        if event["type"] != "log":
            continue
        data = event["data"]
        line = f"{time_text(event.get('created_at'))} {data.get('level', 'info'):<7} {data.get('message', '')}"
        sys.stdout.write((json.dumps(event, ensure_ascii=False) if as_json else line) + "\n")
    sys.stdout.flush()


def _print_log_line(line: LogLineBody) -> None:
    said = f"{line['attempt']} {line['source']:<10} {line['level']:<7} {line['message']}"
    sys.stdout.write(f"{time_text(line['created_at'])} {said}\n")
    sys.stdout.flush()
