"""`python -m egrpo`: sets the process up, then hands over to `egrpo.cli`."""

from __future__ import annotations

import os
import sys

# On a CPU every forward allocates and frees tensors of a few megabytes. glibc gives such blocks back to the kernel at
# once and page faults take up to half of the time; with these limits it keeps them. It reads them at start only.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def _keep_freed_memory() -> None:
    """Starts the same command again with glibc's limits set; the process id and open descriptors stay."""
    if sys.platform == "linux" and any(name not in os.environ for name in _MALLOC):
        os.execve(sys.executable, sys.orig_argv, {**_MALLOC, **os.environ})


if __name__ == "__main__":
    if "train" in sys.argv[1:2]:
        _keep_freed_memory()
    from egrpo.cli import main

    sys.exit(main())
