"""What the trainer prints becomes lines, whole and bounded."""

import threading
from pathlib import Path

import pytest

from worker.output import MAX_BYTES, MAX_LINES, OutputReader


class Log:
    """A file that grows and the lines that came out of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.reader = OutputReader(path, self.lines.append, 0.01)

    def write(self, data: bytes) -> list[str]:
        """Appends, has the reader look once, and returns what it handed on."""
        with self.path.open("ab") as file:
            file.write(data)
        before = len(self.lines)
        self.reader.read()
        return self.lines[before:]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "trainer.log")


def test_lines_come_whole_and_once(log: Log) -> None:
    log.reader.read()
    assert log.write(b"one\ntw") == ["one"]
    assert log.write(b"o\r\n\n  \nthree\n") == ["two", "three"]
    assert log.write("f\u00fcnf\0\n".encode() + b"\xff\n") == ["f\u00fcnf\ufffd", "\ufffd"]


def test_of_a_line_that_is_redrawn_only_the_last_is_kept(log: Log) -> None:
    assert log.write(b"\r 1%|#  |\r50%|## |\r100%|###|\nnext\n") == ["100%|###|", "next"]


def test_what_is_too_much_is_left_out_from_its_beginning(log: Log) -> None:
    lines = log.write(b"x" * 40_000 + b"\n" + b"y" * MAX_BYTES + b"\nlast\n")
    assert lines[0] == "… 40007 bytes of output left out …"
    assert lines[-1] == "last"
    many = log.write(b"\n".join(b"%d" % n for n in range(MAX_LINES + 10)) + b"\n")
    assert (many[0], many[1], len(many)) == ("… 10 lines of output left out …", "10", MAX_LINES + 1)


def test_a_line_without_an_end_keeps_a_bounded_amount_of_memory(log: Log) -> None:
    for _ in range(4):
        assert log.write(b"z" * MAX_BYTES) == []
    assert len(log.write(b"\n")[0]) == MAX_BYTES


def test_the_end_brings_what_is_there_with_or_without_a_newline(log: Log) -> None:
    log.reader.start()
    log.path.write_bytes(b"first\nlast words")
    log.reader.finish()
    assert log.lines == ["first", "last words"]
    assert "trainer-output" not in {thread.name for thread in threading.enumerate()}
