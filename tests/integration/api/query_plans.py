"""Listens to what is asked of the database, and says what of it no index serves, at the sizes that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import Engine, event

MANY_ROWS = 1_000
_EXPLAINED = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", re.IGNORECASE)


@dataclass
class Heard:
    """Statements by their text, each with the parameters of every time it was sent."""

    statements: dict[str, list[Any]] = field(default_factory=dict)

    def __call__(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        each = parameters[0] if isinstance(parameters, list) else parameters
        if _EXPLAINED.match(statement) and each not in self.statements.setdefault(statement, []):
            self.statements[statement].append(each)


@contextmanager
def listening() -> Iterator[Heard]:
    """Yields what every engine of this process sends."""
    heard = Heard()
    event.listen(Engine, "before_cursor_execute", heard)
    try:
        yield heard
    finally:
        event.remove(Engine, "before_cursor_execute", heard)


def complaints(connection: psycopg.Connection, statement: str, parameters: Any) -> list[str]:
    """Returns what is wrong with the plan of a statement. What it changes is rolled back."""
    large = _large_tables(connection)
    # Only what reads is run: a change was made already, and would be refused the second time.
    is_run = not re.search(r"\b(INSERT|UPDATE|DELETE)\b(?! OF| SKIP)", re.sub("FOR (NO KEY )?UPDATE", "", statement))
    options = "ANALYZE, FORMAT JSON" if is_run else "FORMAT JSON"
    with connection.transaction(force_rollback=True):
        row = connection.execute(f"EXPLAIN ({options}) {statement}".encode(), parameters).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return list(_wrong(plan, large, most_sorted=max(MANY_ROWS, 5 * _rows(plan))))


def _large_tables(connection: psycopg.Connection) -> set[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > %s AND relname !~ '^pg_'", (MANY_ROWS,)
    )
    return {str(name) for (name,) in rows}


def _wrong(node: dict[str, Any], large: set[str], most_sorted: float) -> Iterator[str]:
    children = node.get("Plans", [])
    kind, table = node["Node Type"], node.get("Relation Name")
    removed = sum(value for name, value in node.items() if name.startswith("Rows Removed by")) * node.get(
        "Actual Loops", 1
    )
    if kind == "Seq Scan" and table in large:
        yield f"reads the whole of {table}"
    if removed > MANY_ROWS:
        yield f"throws {removed:.0f} rows away ({kind} {table or ''})"
    if kind == "Sort" and _rows(children[0]) > most_sorted:
        yield f"sorts {_rows(children[0]):.0f} rows by {node['Sort Key']}"
    for child in children:
        yield from _wrong(child, large, most_sorted)


def _rows(node: dict[str, Any]) -> float:
    return float(node.get("Actual Rows", node["Plan Rows"]) * node.get("Actual Loops", 1))
