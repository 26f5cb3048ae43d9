"""Encoded prompts on disk, so that a run whose prompts were encoded before never loads the text encoders.

One safetensors file holds the prompts that are encoded in one batch, under the sha256 of everything that decides the
numbers. The batch is part of that: what is read is to the bit what encoding would give, whatever the cache holds.
Several processes may use one folder, as files appear whole or not at all. A file that cannot be read is removed and
its prompts are encoded anew; a folder that cannot be written costs a warning, not the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import diffusers
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

# 4000 prompts of FLUX.1 with 512 tokens in bfloat16.
_DEFAULT_LIMIT_BYTES = 2**34
_SUFFIX = ".safetensors"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedsCache:
    """A folder of encoded prompts, bounded in size: the files that were used longest ago go first."""

    folder: Path
    limit_bytes: int = _DEFAULT_LIMIT_BYTES

    @classmethod
    def default(cls) -> Self:
        """Returns the cache in `EGRPO_CACHE`, or else in the user's cache folder (XDG)."""
        root = os.environ.get("EGRPO_CACHE")
        if root is None:
            root = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "egrpo")
        return cls(Path(root) / "embeds")

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Returns the tensors under a key, on the CPU, or None if they are not there or cannot be read."""
        path = self._path(key)
        try:
            tensors = load_file(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError) as error:
            _log.warning("encoded prompts in %s cannot be read and are made anew: %s", path, error)
            path.unlink(missing_ok=True)
            return None
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes tensors under a key, then removes old files until the folder is within its limit."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
            os.close(descriptor)
            try:
                save_file({tensor: value.cpu().contiguous() for tensor, value in tensors.items()}, name)
                os.replace(name, self._path(key))
            finally:
                Path(name).unlink(missing_ok=True)
            self._evict()
        except (OSError, SafetensorError) as error:
            _log.warning("encoded prompts cannot be kept in %s: %s", self.folder, error)

    def _evict(self) -> None:
        files = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob(f"*{_SUFFIX}"))
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"


def embeds_key(
    digest: str, family: str, dtypes: Sequence[torch.dtype], device_type: str, length: int, prompts: Sequence[str]
) -> str:
    """Returns the sha256 of all that decides the embeddings of a batch of prompts, library versions included."""
    versions = [torch.__version__, transformers.__version__, diffusers.__version__]
    document = [digest, family, [str(dtype) for dtype in dtypes], device_type, length, list(prompts), versions]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()
