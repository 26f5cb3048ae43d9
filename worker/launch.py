"""Starts one trainer so that it cannot outlive its worker.

Run as a script, `python -I launch.py PARENT_PID COMMAND…`: it prepares the process and replaces itself by COMMAND.
Where COMMAND is a launcher of several processes, it stands before each of them again, with `leader` for the launcher's
id. It is its own small program because the alternative, `preexec_fn`, runs Python between fork and exec in a process
with threads, where a lock held by another thread can hang the child for ever. It imports the standard library only.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# The kernel adds this to the trainer's badness (0..1000), so that memory pressure ends the trainer, which can resume,
# and not the worker, which holds the lease.
_OOM_SCORE_ADJ = "500"
_LEADER = "TRAINER_LEADER_PID"


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel to kill this process when its parent dies. Linux only; elsewhere the broken pipe has to do."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # The parent died before the request was in place.
        os.kill(os.getpid(), signal.SIGKILL)


def volunteer_for_the_oom_killer() -> None:
    """Makes this process a likelier victim of memory pressure than its worker, where the kernel allows it."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE_ADJ)


def main() -> None:
    """Prepares the process and becomes the trainer."""
    parent, command = sys.argv[1:2], sys.argv[2:]
    die_with_parent(int(os.environ[_LEADER] if parent == ["leader"] else parent[0]))
    if parent != ["leader"]:
        os.environ[_LEADER] = str(os.getpid())
    volunteer_for_the_oom_killer()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
