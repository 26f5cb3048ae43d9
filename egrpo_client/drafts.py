"""A download on its way: the `.part` file that a later try goes on with, and the check before it gets its name."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from egrpo_client.errors import DigestError


@dataclasses.dataclass(frozen=True)
class Downloaded:
    """One file that now lies on this machine."""

    path: Path
    size_bytes: int
    sha256: str


class Draft:
    """The part of a file that has arrived. Not for two at a time: they would take each other's bytes."""

    def __init__(self, wanted: Downloaded) -> None:
        self.wanted = wanted
        self.path = wanted.path.with_name(wanted.path.name + ".part")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.size_bytes = self.path.stat().st_size if self.path.exists() else 0
        # Bytes of an earlier run may be of another file: whoever finds them damaged starts over once.
        self.is_inherited = self.size_bytes > 0
        if self.size_bytes > wanted.size_bytes:
            self.start_over()

    @property
    def is_complete(self) -> bool:
        """Whether all bytes have arrived, right or wrong."""
        return self.size_bytes == self.wanted.size_bytes

    def headers(self) -> dict[str, str]:
        """Returns the request headers for the rest; `If-Range` makes it the whole where the file has changed."""
        if self.size_bytes == 0:
            return {}
        return {"Range": f"bytes={self.size_bytes}-", "If-Range": f'"sha256:{self.wanted.sha256}"'}

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Makes room for an answer: behind what is there if it is the rest, else from the first byte."""
        if not (status == 206 and headers.get("Content-Range", "").startswith(f"bytes {self.size_bytes}-")):
            self.start_over()

    def add(self, chunk: bytes) -> None:
        """Writes what has arrived.

        Raises:
            DigestError: more bytes than were announced.
        """
        with self.path.open("ab") as file:
            file.write(chunk)
        self.size_bytes += len(chunk)
        if self.size_bytes > self.wanted.size_bytes:
            self.discard()

    def start_over(self) -> None:
        """Forgets what has arrived."""
        self.path.unlink(missing_ok=True)
        self.size_bytes, self.is_inherited = 0, False

    def is_right(self) -> bool:
        """Returns whether the bytes are the announced ones."""
        return self.is_complete and (self.size_bytes == 0 or digest_of(self.path) == self.wanted.sha256)

    def keep(self) -> Downloaded:
        """Gives the file its name; it is on the disk by then."""
        with self.path.open("ab") as file:
            os.fsync(file.fileno())
        self.path.replace(self.wanted.path)
        return self.wanted

    def discard(self) -> None:
        """Removes what has arrived.

        Raises:
            DigestError: always; it says what arrived and what was announced.
        """
        size_bytes, sha256 = self.size_bytes, digest_of(self.path) if self.path.exists() else "nothing"
        self.start_over()
        wanted = self.wanted
        raise DigestError(
            f"{wanted.path.name} arrived damaged: {size_bytes} bytes with sha256 {sha256[:12]}…, "
            f"announced were {wanted.size_bytes} bytes with {wanted.sha256[:12]}…. Nothing was kept; try again."
        )


def is_there(wanted: Downloaded) -> bool:
    """Returns whether the file lies there already, whole."""
    path = wanted.path
    return path.is_file() and path.stat().st_size == wanted.size_bytes and digest_of(path) == wanted.sha256


def digest_of(path: Path) -> str:
    """Returns the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
