"""No operation without a method, no method in one half only, and types that a checker can read."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import egrpo_client
from egrpo_client import AsyncClient, AsyncJob, Client, Job, models
from egrpo_client.aio.operations import OPERATIONS

ROOT = Path(egrpo_client.__file__).parent


def test_every_operation_of_the_document_has_a_method() -> None:
    document = json.loads((ROOT.parent / "docs" / "openapi.json").read_text())
    described = {
        operation["operationId"]: (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert {each.operation_id: (each.method, each.path) for each in OPERATIONS.values()} == described
    for name in OPERATIONS:
        assert callable(getattr(Client, name)), name
        assert inspect.getdoc(getattr(Client, name)), name


def test_both_halves_have_the_same_surface() -> None:
    for waiting, plain in ((AsyncClient, Client), (AsyncJob, Job)):
        names = {name for name in dir(waiting) if not name.startswith("_")}
        assert names == {name for name in dir(plain) if not name.startswith("_")}
        for name in names:
            if callable(getattr(plain, name)):
                ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (plain, waiting))
                assert list(ours) == list(theirs), name


def test_a_type_checker_takes_the_examples_of_the_page_and_finds_what_is_wrong(tmp_path: Path) -> None:
    page = (ROOT.parent / "docs" / "client.md").read_text()
    examples = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    head = ["from egrpo_client import Client", 'client = Client("", "")']
    wrong = ['client.submit({"base_model": 3})', 'client.get_job("job_1")["statuss"]', "client.cancel_job()"]
    (tmp_path / "right.py").write_text(examples)
    (tmp_path / "wrong.py").write_text("\n".join(head + wrong))
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "cache", "right.py", "wrong.py"]
    env = {**os.environ, "MYPYPATH": str(ROOT.parent)}
    checked = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False).stdout
    assert set(re.findall(r"^(\S+): error:", checked, re.MULTILINE)) == {f"wrong.py:{line}" for line in (3, 4, 5)}, (
        checked
    )


def test_types_are_there_for_checkers_and_at_runtime() -> None:
    assert (ROOT / "py.typed").exists()
    hints = typing.get_type_hints(models.JobSpec)
    assert hints["name"] is str
    assert typing.get_type_hints(Client.create_job)["return"] is models.JobBody
    assert set(typing.get_args(models.Status)) >= {"queued", "succeeded"}
