"""How an answer of the service looks: a table for rows, lines for one thing, JSON where it is asked for."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import typer

from egrpo_client.cli.output import print_json, print_table, say, status_text, time_text
from egrpo_client.drafts import Downloaded
from egrpo_client.exchange import Event

# Where a table has more, it is no longer read; `--json` has everything.
_COLUMNS = 8


def show(answer: Any, *, as_json: bool = False) -> None:
    """Prints what a method of the client has returned."""
    if isinstance(answer, bytes):
        _show_bytes(answer)
    elif isinstance(answer, Downloaded):
        say_downloaded(answer)
    elif isinstance(answer, str):
        sys.stdout.write(answer)
    elif answer is None:
        print_json({}) if as_json else say("done")
    elif isinstance(answer, dict):
        _show_one(answer, as_json=as_json)
    else:
        _show_many(answer, as_json=as_json)


def say_downloaded(file: Downloaded) -> None:
    """Prints a line of a file that was fetched."""
    say(f"{file.path}  {file.size_bytes} bytes  sha256 {file.sha256[:12]}…")


def _show_bytes(answer: bytes) -> None:
    if sys.stdout.isatty():
        raise typer.BadParameter("These bytes are not for a terminal; name a file.", param_hint="--output")
    sys.stdout.buffer.write(answer)
    sys.stdout.flush()


def _show_one(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    elif isinstance(answer.get("data"), list):
        _show_rows(answer["data"])
    else:
        width = max(map(len, answer), default=0)
        for name, value in answer.items():
            say(f"{name:<{width}}  {_text(name, value)}")


def _show_many(answer: Iterator[Any], *, as_json: bool) -> None:
    first = next(answer, None)
    if isinstance(first, Event):
        for event in (first, *answer):
            print_line({"event": event.name, "data": event.data})
        return
    rows = [] if first is None else [first, *answer]
    if as_json:
        print_json(rows)
    else:
        _show_rows(rows)


def print_line(value: Any) -> None:
    """Prints one JSON document as one line, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _show_rows(rows: list[Any]) -> None:
    if not all(isinstance(row, dict) for row in rows):
        sys.stdout.writelines(f"{row}\n" for row in rows)
        return
    names = [name for name in (rows[0] if rows else {}) if not any(isinstance(row[name], dict | list) for row in rows)]
    shown = names[:_COLUMNS]
    cells = ([status_text(row[n]) if n == "status" else _text(n, row.get(n)) for n in shown] for row in rows)
    print_table([name.replace("_", " ").upper() for name in shown], cells)


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if name.endswith("_at"):
        return time_text(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
