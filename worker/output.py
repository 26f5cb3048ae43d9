"""Reads what the trainer's processes print, while they print it.

They write `trainer.log` in the run folder, not a pipe: nothing here can hold them up. A thread looks for new bytes
every so often and hands on whole lines. A trainer that prints more than is worth keeping loses the beginning of each
portion, and a line says so.
"""

import threading
from collections.abc import Callable
from pathlib import Path

# What one look hands on at most. A log is for reading: this is far more than a second of it.
MAX_BYTES = 64 * 1024
MAX_LINES = 500


class OutputReader:
    """Follows one file from its beginning, which need not exist yet."""

    def __init__(self, path: Path, on_line: Callable[[str], None], interval_s: float) -> None:
        """Prepares the thread; nothing runs before `start`.

        Args:
            path: The file.
            on_line: Called in the reader's thread for every line. It must not block.
            interval_s: Seconds between two looks.
        """
        self._path = path
        self._on_line = on_line
        self._interval_s = max(interval_s, 0.01)
        self._offset = 0
        self._rest = b""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-output", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def finish(self) -> None:
        """Returns when everything was handed on that the file holds now."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.read()
        self.read()
        self._hand_on([self._rest])

    def read(self) -> None:
        """Hands on the lines that were completed since the last look."""
        try:
            with self._path.open("rb") as file:
                skipped = max(0, file.seek(0, 2) - self._offset - MAX_BYTES)
                if skipped:
                    self._rest = b""
                file.seek(self._offset + skipped)
                new = file.read(MAX_BYTES)
        except OSError:  # Not there yet, or not any more: no line of it is worth an attempt.
            return
        self._offset += skipped + len(new)
        if skipped:
            self._on_line(f"… {skipped} bytes of output left out …")
        *lines, self._rest = (self._rest + new).split(b"\n")
        self._rest = self._rest[-MAX_BYTES:]
        self._hand_on(lines)

    def _hand_on(self, lines: list[bytes]) -> None:
        shown = [text for line in lines if (text := _text(line))]
        if len(shown) > MAX_LINES:
            self._on_line(f"… {len(shown) - MAX_LINES} lines of output left out …")
        for text in shown[-MAX_LINES:]:
            self._on_line(text)


def _text(line: bytes) -> str:
    # A progress bar redraws its line with carriage returns; only what it showed last matters.
    shown = line.rstrip(b"\r\n ").rsplit(b"\r", 1)[-1]
    return shown.decode("utf-8", "replace").replace("\0", "\ufffd").rstrip()
