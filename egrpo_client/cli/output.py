"""What commands print: tables for people, JSON for programs, and errors in plain words on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from egrpo_client.errors import ApiError
from egrpo_client.exchange import JSON

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

# Characters of the widest line of a table that goes into a pipe or a file.
_WIDEST = 100_000
STATUS_STYLES = {"running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow"}


def print_json(value: Any) -> None:
    """Prints one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def say(line: str, on: Console = console) -> None:
    """Prints lines as they are: a terminal breaks a long one where it ends, a pipe or a file gets it whole."""
    on.print(line, markup=False, highlight=False, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], on: Console = console) -> None:
    """Prints rows under plain headings; what is wider than a terminal is folded, and in a pipe or a file nothing is."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    if not on.is_terminal:
        table.width = on.measure(table, options=on.options.update(max_width=_WIDEST)).maximum
    on.print(table, crop=on.is_terminal)


def status_text(status: str) -> Text:
    """Returns the status in its colour."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def time_text(moment: str | None) -> str:
    """Returns an RFC 3339 moment in local time, to the second."""
    if not moment:
        return ""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def progress_text(job: JSON) -> str:
    """Returns `step/total`, or nothing before the first step."""
    progress = job.get("progress") or {}
    if not progress.get("total_steps"):
        return ""
    return f"{progress.get('step', 0)}/{progress['total_steps']}"


def duration_text(seconds: float) -> str:
    """Returns seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def reason_text(job: JSON) -> str:
    """Returns why the job is where it is, in one line."""
    reason = job.get("status_reason") or {}
    if not reason:
        return ""
    retry = " A retry may help." if reason.get("retryable") else ""
    return f"{reason.get('code', '')}: {reason.get('message', '')}{retry}"


def print_error(error: Exception, *, as_json: bool) -> None:
    """Prints an error on stderr: every sentence of it, or its problem document."""
    if as_json:
        problem = error.problem if isinstance(error, ApiError) else {"code": _code(error), "detail": str(error)}
        sys.stderr.write(json.dumps(problem, ensure_ascii=False) + "\n")
        return
    first, *others = error.sentences() if isinstance(error, ApiError) else [str(error)]
    errors.print(Text("Error: ", style="bold red") + Text(first), soft_wrap=True)
    for sentence in others:
        errors.print(Text(f"  {sentence}"), soft_wrap=True)
    if isinstance(error, ApiError) and error.request_id and error.status >= 500:
        say(f"  request id: {error.request_id}", errors)


def _code(error: Exception) -> str:
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in type(error).__name__)
    return words.strip("_").removesuffix("_error")
