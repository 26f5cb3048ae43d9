"""The hub cache of this machine, bounded in size: the repositories that were used longest ago go, never one in use.

The trainer fills the cache, and several workers of a machine may share it. Who uses a repository holds a shared lock on
a file of it, and who removes one holds the exclusive lock: they are the kernel's, so a worker that is killed lets go of
its own. The file's time says when the repository was last used. A repository is removed as a whole and only if no job
uses any revision of it, because a revision that is being fetched is not yet to be seen.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from huggingface_hub import CachedRepoInfo, HFCacheInfo, scan_cache_dir
from huggingface_hub.constants import HF_HUB_CACHE

from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_LOCKS = Path(".locks", "egrpo")  # The hub's client keeps its own locks in `.locks` and looks for no repository there.


class ModelCache:
    """One folder of the hub's client. Without a limit nothing is locked and nothing removed."""

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        """Prepares the cache; nothing is read or made.

        Args:
            folder: As the hub's client lays it out.
            limit_bytes: What it may take when no job runs; None for no limit.
        """
        self._folder = folder
        self._limit_bytes = limit_bytes

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """Returns the cache that this worker's trainers use."""
        limit_gb = settings.model_cache_gb
        return cls(Path(HF_HUB_CACHE), None if limit_gb is None else int(limit_gb * 10**9))

    @contextmanager
    def used(self, repo: str | None) -> Iterator[None]:
        """Keeps a repository while it is used, and brings the cache within its limit before and after."""
        if self._limit_bytes is None:
            yield
            return
        lock = None if repo is None else self._lock(repo, fcntl.LOCK_SH)
        try:
            self._evict()
            yield
        finally:
            if lock is not None and repo is not None:
                self._touch(repo)
                os.close(lock)
            self._evict()

    def _evict(self) -> None:
        """Removes repositories until the cache is within its limit, or all that are left are in use."""
        if not self._folder.is_dir():
            return
        try:
            found = scan_cache_dir(self._folder)
            size_bytes = found.size_on_disk
            for repo in sorted(found.repos, key=self._last_used):
                if size_bytes <= (self._limit_bytes or 0):
                    return
                size_bytes -= self._remove(found, repo)
        except (OSError, ValueError) as error:  # A job needs no tidy cache.
            log.warning("event=model_cache_not_bounded folder=%s error=%s", self._folder, error)
            return
        if size_bytes > (self._limit_bytes or 0):
            log.warning("event=model_cache_over_its_limit size_bytes=%d limit_bytes=%s", size_bytes, self._limit_bytes)

    def _remove(self, found: HFCacheInfo, repo: CachedRepoInfo) -> int:
        """Removes a repository that nobody uses, and returns how many bytes that frees."""
        lock = self._lock(repo.repo_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            return 0
        try:
            only_it = replace(found, repos=frozenset({repo}))  # Commits go by their hash, which a copy may share.
            strategy = only_it.delete_revisions(*(revision.commit_hash for revision in repo.revisions))
            strategy.execute()
            log.info("event=model_evicted repo=%s freed_bytes=%d", repo.repo_id, strategy.expected_freed_size)
            return strategy.expected_freed_size
        finally:
            os.close(lock)

    def _lock(self, repo: str, how: int) -> int | None:
        """Returns the descriptor that holds the lock; None if it is taken, or if there can be none here."""
        path = self._lock_path(repo)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError as error:
            log.warning("event=model_not_locked repo=%s error=%s", repo, error)
            return None
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if how == fcntl.LOCK_SH:
            self._touch(repo)
        return descriptor

    def _last_used(self, repo: CachedRepoInfo) -> float:
        path = self._lock_path(repo.repo_id)
        return path.stat().st_mtime if path.exists() else max(repo.last_accessed, repo.last_modified)

    def _touch(self, repo: str) -> None:
        with suppress(OSError):
            os.utime(self._lock_path(repo))

    def _lock_path(self, repo: str) -> Path:
        return self._folder / _LOCKS / repo.replace("/", "--")
