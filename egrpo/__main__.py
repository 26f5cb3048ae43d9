"""`python -m egrpo`: sets the process up, then hands over to `egrpo.cli`."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

# On a CPU every forward allocates and frees tensors of a few megabytes. glibc gives such blocks back to the kernel at
# once and page faults take up to half of the time; with these limits it keeps them. It reads them at start only.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def _keep_freed_memory() -> None:
    """Starts the same command again with glibc's limits set; the process id and open descriptors stay."""
    if sys.platform == "linux" and any(name not in os.environ for name in _MALLOC):
        os.execve(sys.executable, sys.orig_argv, {**_MALLOC, **os.environ})


def _end(code: int) -> NoReturn:
    """Ends the process; one of several without taking the interpreter down.

    Torch's caches of sharded tensors hold the process group, whose threads then outlive `destroy_process_group`. One
    that lets go of a tensor while the interpreter ends needs Python for it, and aborts the process instead (-6).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    if "train" in sys.argv[1:2]:
        _keep_freed_memory()
    from egrpo.cli import main

    _end(main())
