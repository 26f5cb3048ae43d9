"""What GPUs this machine has, by the word of the driver's own program; the supervisor must not import torch."""

import logging
import os
import re
import subprocess
from collections import Counter

from jobs.queue import Pool

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0  # A driver that has to wake up its GPUs takes seconds.
_NAME = re.compile(r"^GPU \d+: (?:NVIDIA )?(?:GeForce )?(.+?) \(UUID: (\S+)\)$", re.MULTILINE)


def detect() -> Pool:
    """Returns type and number of this machine's GPUs, or `cpu` and 1 if there are none."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.info("event=no_gpus error=%s", error)
        return Pool()
    return pool_of(listed.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def pool_of(listing: str, visible: str | None) -> Pool:
    """Returns the pool of `nvidia-smi -L` and CUDA_VISIBLE_DEVICES: what a trainer of this worker would see.

    A worker serves one type. On a machine with several it is the most frequent one; the others want workers of their
    own, with CUDA_VISIBLE_DEVICES and EGRPO_GPU_TYPE.
    """
    types = [_type_of(name) for name, _ in _NAME.findall(listing)]
    if visible is not None:
        chosen = [part.strip() for part in visible.split(",") if part.strip()]
        indices = [int(part) for part in chosen if part.isdecimal()]
        types = [types[index] for index in indices if index < len(types)] if indices else types[: len(chosen)]
    if not types:
        return Pool()
    gpu_type, count = Counter(types).most_common(1)[0]
    if count < len(types):
        log.warning("event=several_gpu_types served=%s found=%s", gpu_type, sorted(set(types)))
    return Pool(gpu_type, min(count, 8))


def _type_of(name: str) -> str:
    """Returns a GPU's name as jobs write it: "NVIDIA A100-SXM4-80GB" is `a100-sxm4-80gb`."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-")[:64]
