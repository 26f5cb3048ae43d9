"""`python -m contract check | write | release`: see `contract/__init__.py`."""

from __future__ import annotations

import argparse
import json
import sys

from api.__main__ import openapi_text
from contract.check import ALLOWED, KEPT, RELEASED, allowed_lines, complaints, difference, outdated
from contract.sdk.write import made_files

_ALLOWED_HEAD = """\
# Changes since the released document that break clients and are meant: one a line, as the check prints it, with
# the reason as a comment above it. `python -m contract release` empties the list.
"""


def check() -> int:
    """Prints what is not in step and returns the exit code."""
    served = openapi_text()
    if diff := difference(KEPT.read_text(encoding="utf-8"), served):
        print(diff, end="")
        print("docs/openapi.json is not what the API serves: python -m contract write")
    old = outdated(json.loads(served))
    for path in old:
        print(f"{path.relative_to(KEPT.parents[1])} is not what it is made from: python -m contract write")
    found = complaints(RELEASED.read_text(encoding="utf-8"), served, allowed_lines(ALLOWED.read_text(encoding="utf-8")))
    print(*found, sep="\n", end="\n" if found else "")
    if any(each.startswith("breaks") for each in found):
        print("A change that is meant goes into contract/allowed.txt, as it stands behind the colon.")
    return 1 if diff or old or found else 0


def write() -> int:
    """Writes the document, and what of the client is made from it."""
    served = openapi_text()
    KEPT.write_text(served, encoding="utf-8")
    for path, text in made_files(json.loads(served)).items():
        path.write_text(text, encoding="utf-8")
    return 0


def release() -> int:
    """Makes the document that is served the released one: from now on it is what clients were made from."""
    RELEASED.write_text(json.dumps(json.loads(openapi_text()), ensure_ascii=False) + "\n", encoding="utf-8")
    ALLOWED.write_text(_ALLOWED_HEAD, encoding="utf-8")
    return 0


def main() -> int:
    """Runs one command and returns the exit code of the process."""
    parser = argparse.ArgumentParser(prog="python -m contract", description="What clients may rely on.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="the kept document is the one that is served, and breaks no client")
    commands.add_parser("write", help="write the kept document, and what of the client is made from it")
    commands.add_parser("release", help="what is served now is what released clients are made from")
    return {"check": check, "write": write, "release": release}[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
