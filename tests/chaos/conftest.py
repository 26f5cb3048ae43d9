"""The folder of a run."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for the sake of Unix sockets, that PostgreSQL's user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="egrpo-chaos-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
