"""How a process of `python -m egrpo` ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Prints at the exit's handlers, and once more if the interpreter takes itself down.
AS_MODULE = """
import atexit, os, runpy, sys
import egrpo.cli

class Kept:
    def __del__(self, write=os.write):
        write(1, b"taken down")

def main():
    sys.kept = Kept()
    atexit.register(print, "exit handler")
    print("written")
    return 75

egrpo.cli.main = main
runpy.run_module("egrpo", run_name="__main__")
"""


@pytest.mark.parametrize(("world_size", "expected"), [("1", ["taken down"]), ("2", [])])
def test_one_of_several_processes_does_not_take_its_interpreter_down(world_size: str, expected: list[str]) -> None:
    """Threads of the process group may still run, and one that needs Python then would abort the process."""
    ended = subprocess.run(
        [sys.executable, "-c", AS_MODULE],
        env={**os.environ, "WORLD_SIZE": world_size, "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 75
    assert ended.stdout.splitlines() == ["written", "exit handler", *expected]
