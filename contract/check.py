"""The check of `make check`: the kept document is the one that is served, and it breaks nobody unless we mean it."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from contract.breaking import breaking_changes
from contract.schemas import Schema
from contract.sdk.write import made_files

FOLDER = Path(__file__).parent
KEPT = FOLDER.parent / "docs" / "openapi.json"
RELEASED = FOLDER / "released.json"
ALLOWED = FOLDER / "allowed.txt"


def difference(kept: str, served: str) -> str:
    """Returns the diff from the document that is kept to the one that is served; empty if they are the same."""
    lines = (kept.splitlines(keepends=True), served.splitlines(keepends=True))
    return "".join(difflib.unified_diff(*lines, "docs/openapi.json", "python -m api openapi"))


def outdated(document: Schema) -> list[Path]:
    """Returns the files of the client that are not what the document, or their other half, makes them."""
    files = made_files(document).items()
    return [path for path, text in files if not path.exists() or path.read_text(encoding="utf-8") != text]


def allowed_lines(text: str) -> set[str]:
    """Returns the changes that are meant, as they are written in `contract/allowed.txt`: one a line, `#` comments."""
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")}


def complaints(released: str, served: str, allowed: set[str]) -> list[str]:
    """Returns a sentence for each change that breaks clients and is not allowed, and for each that did not happen."""
    changes = {str(change) for change in breaking_changes(json.loads(released), json.loads(served))}
    breaking = [f"breaks clients: {line}" for line in sorted(changes - allowed)]
    stale = [f"allowed, but it is not so: {line}" for line in sorted(allowed - changes)]
    return breaking + stale
