"""Stops the servers when the process that started them is gone, even after `kill -9`.

The starter holds the write end of a pipe and sends one JSON line per server; the guard, a process in a session of its
own, reads until the pipe closes, which the kernel does for a starter that was killed. Then it stops in reverse order
whatever still lives. A starter that stopped its servers itself leaves the guard nothing to do.
"""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

from egrpo_client.stack.processes import ProcessIdentity, stop_all


class Guard:
    """The starter's side: a guard process that is told of each server."""

    def __init__(self, log_path: Path) -> None:
        with log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "egrpo_client.stack.guard"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def watch(self, identity: ProcessIdentity) -> None:
        """Adds a server to those that must not outlive this process."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(dataclasses.asdict(identity)).encode() + b"\n")
        self._popen.stdin.flush()

    def close(self) -> None:
        """Lets the guard stop what is left and end."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait()


def main() -> None:
    """Reads identities until the pipe closes, then stops them in reverse order."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched = [ProcessIdentity(**json.loads(line)) for line in sys.stdin]
    stop_all(watched, told=lambda name: print(f"the starter is gone; stopping {name}", flush=True))


if __name__ == "__main__":
    main()
