"""Which files of the client are made, and from what."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from contract.sdk.annotations import Schema
from contract.sdk.models import models_text
from contract.sdk.operations import operations_text
from contract.sdk.synchronous import synchronous

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "egrpo_client"
# Sleeping and threads are the two things that the halves do differently.
BY_HAND = ("__init__.py", "runtime.py")
# What reads well with waiting, a loop that yields, has a shorter form without it.
_FIXES = ("check", "--fix-only", "--unsafe-fixes", "--quiet", "--select", "I,F401,UP028,C416")
_OURS = ("--config", str(ROOT / "pyproject.toml"), "--config", 'lint.isort.known-first-party=["egrpo_client"]')


def made_files(document: Schema) -> dict[Path, str]:
    """Returns what every made file has to hold."""
    operations = operations_text(document)
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted((CLIENT / "aio").glob("*.py"))}
    sources = {name: text for name, text in sources.items() if name not in BY_HAND} | {"operations.py": operations}
    drafts = {
        "models.py": _noted("the OpenAPI document", models_text(document)),
        "aio/operations.py": _noted("the OpenAPI document", operations),
    }
    drafts |= {f"sync/{name}": _noted(f"aio/{name}", synchronous(text)) for name, text in sources.items()}
    return {CLIENT / name: text for name, text in _formatted(drafts).items()}


def _noted(source: str, text: str) -> str:
    return f"# Made from {source}: python -m contract write\n{text}"


def _formatted(drafts: dict[str, str]) -> dict[str, str]:
    """Returns the files as ruff writes them; all at once, because it is its start that takes time."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, name) for name in drafts}
        for name, path in paths.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(drafts[name], encoding="utf-8")
        for arguments in (_FIXES, ("format", "--quiet")):
            subprocess.run([sys.executable, "-m", "ruff", *arguments, *_OURS, "--no-cache", folder], check=True)
        return {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
