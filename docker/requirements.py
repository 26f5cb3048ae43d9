"""Prints the requirements of an extra of pyproject.toml, one a line: `python requirements.py worker`.

Lets the image install packages in a layer of their own, before any source is copied. Extras that name other extras of
this project (`egrpo[jobs]`) are followed.
"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], extra: str) -> list[str]:
    """Returns the requirements of the extra and of the project itself, without duplicates, in order."""
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    base = project["dependencies"]
    assert isinstance(base, list)
    found: dict[str, None] = dict.fromkeys(base)
    pending = [extra]
    while pending:
        for requirement in extras[pending.pop()]:
            if own := re.fullmatch(r"egrpo\[(\w+)\]", requirement):
                pending.append(own[1])
            else:
                found[requirement] = None
    return list(found)


if __name__ == "__main__":
    document = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    print("\n".join(requirements(document["project"], sys.argv[1])))
