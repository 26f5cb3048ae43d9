"""A disk of 64 MiB for the run folder of one worker, which can be filled from outside.

It is a tmpfs in a mount namespace of the worker's own, so that it goes with the process, however that ends.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o size=64m,mode=755 tmpfs "$0" && exec "$@"'


class SmallDisk:
    """What a worker is started with, and what fills its disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        tried = subprocess.run(self.around(["true"]), capture_output=True, text=True, check=False)
        self.refused = tried.stderr.strip() if tried.returncode else None

    def around(self, command: list[str]) -> list[str]:
        """Returns the command that runs another with the disk; its process becomes the other's."""
        return ["unshare", "--mount", "sh", "-c", _MOUNT, str(self._folder), *command]

    def fill(self, pid: int) -> None:
        """Fills the disk of a process to the last byte."""
        with suppress(OSError), self._ballast(pid).open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"\0" * 65536)

    def empty(self, pid: int) -> None:
        with suppress(OSError):  # It went with its process.
            self._ballast(pid).unlink()

    def _ballast(self, pid: int) -> Path:
        return Path(f"/proc/{pid}/root{self._folder}/ballast")
