"""Brings the trainer's files into the store and then names them in the database: samples, checkpoints, artifacts.

The commit protocol of a checkpoint: the trainer wrote, fsynced and renamed it; here every file is checked against the
sha256 that the trainer announced, uploaded under a key that carries the epoch, read back and checked again; only then,
and after all that the trainer told before, the row is inserted, guarded by the epoch, and told. A row therefore names
whole files and nothing else does. A kill at any point leaves at most objects without a row.
"""

import logging
import mimetypes
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs import artifacts, checkpoints, events, samples
from jobs.adapters import formats_in
from jobs.db import SessionFactory, transaction
from jobs.errors import ChecksumMismatch, DatabaseUnavailable
from jobs.leases import Claim
from jobs.store import ObjectStore, StoredFile
from jobs.tables import Checkpoint, Document
from worker import retention
from worker.fence import Fence
from worker.protocol import ArtifactEvent, CheckpointEvent, FileEntry, ProtocolError, SampleEvent, path_inside
from worker.publisher import Lane
from worker.rows import RowEvent

log = logging.getLogger(__name__)

FileEvent = SampleEvent | CheckpointEvent | ArtifactEvent
MANIFEST = "manifest.json"
_UPLOAD_TRIES = 3


@dataclass(frozen=True)
class Spooled:
    """A file event, the place from which its files are uploaded, and how many rows the trainer had told before it."""

    event: FileEvent
    source: Path
    num_rows: int


@dataclass(frozen=True)
class _Stored:
    """A file event whose files are in the store, or the reason why they cannot be."""

    event: FileEvent
    files: tuple[StoredFile, ...] = ()
    refused: str | None = None


class FilePublisher:
    """Publishes the files of one claim. `spool` runs in the trainer's reader thread, `publish` in the uploader's."""

    def __init__(
        self,
        sessions: SessionFactory,
        store: ObjectStore,
        claim: Claim,
        fence: Fence,
        run_dir: Path,
        rows: Lane[RowEvent],
    ) -> None:
        """Prepares the publisher.

        Args:
            sessions: Makes database sessions.
            store: Where the files go.
            claim: What is being run; its epoch is part of every key.
            fence: Guards every transaction.
            run_dir: The trainer's run folder.
            rows: Publishes what needs no upload; nothing is named before the rows that were told before it.
        """
        self._sessions = sessions
        self._store = store
        self._claim = claim
        self._fence = fence
        self._run_dir = run_dir
        self._rows = rows
        self._spool_dir = run_dir / ".spool"
        self._num_spooled = 0
        self._stored: dict[int, _Stored] = {}
        self.adapter_committed = False

    def spool(self, event: FileEvent) -> Spooled:
        """Returns the event with a place that keeps its files, whatever the trainer deletes while the store is down.

        A checkpoint's files are linked, not copied. The trainer prunes a checkpoint only after it wrote a later one, so
        they are still there when its event is read.
        """
        if not isinstance(event, CheckpointEvent):
            return Spooled(event, self._run_dir, self._rows.num_put)
        self._num_spooled += 1
        target = self._spool_dir / f"{self._num_spooled:06d}"
        for name in {*(entry.path for entry in event.files), MANIFEST}:
            _link(self._run_dir, f"{event.path}/{name}", target, name)
        return Spooled(event, target, self._rows.num_put)

    def publish(self, batch: Sequence[Spooled]) -> None:
        """Uploads the files of the batch, then inserts their rows in one transaction. Safe to repeat.

        Raises:
            LeaseLost: The epoch is over.
            RuntimeError: What was told before these files cannot be published.
            Unavailable: The store or the database is down; call again with the same batch.
        """
        for spooled in batch:
            if id(spooled) not in self._stored:  # What was uploaded before the store went down is not uploaded again.
                self._stored[id(spooled)] = self._upload(spooled)
        stored = [self._stored[id(spooled)] for spooled in batch]
        self._rows.wait_for(max(spooled.num_rows for spooled in batch))
        with transaction(self._sessions) as session:
            self._fence.pass_through(session)
            told = [told for item in stored for told in self._insert(session, item)]
            events.append_all(session, self._claim.job_id, told)
        self._stored.clear()
        for spooled in batch:
            if spooled.source != self._run_dir:
                shutil.rmtree(spooled.source, ignore_errors=True)
        committed = {item.event.kind for item in stored if isinstance(item.event, CheckpointEvent) and not item.refused}
        self.adapter_committed |= "adapter" in committed
        if committed:
            self._prune()

    def _prune(self) -> None:
        try:
            retention.prune(self._sessions, self._store, self._claim, self._fence)
        except DatabaseUnavailable as error:  # The next commit does it.
            log.warning("event=pruning_put_off job_id=%s error=%s", self._claim.job_id, error)

    @property
    def _prefix(self) -> str:
        claim = self._claim
        return f"projects/{claim.project_id}/jobs/{claim.job_id}/{claim.epoch}"

    def _upload(self, spooled: Spooled) -> _Stored:
        event = spooled.event
        try:
            if isinstance(event, CheckpointEvent):
                return _Stored(event, self._upload_checkpoint(event, spooled.source))
            folder = "" if event.path.startswith("samples/") else "artifacts/"
            path = path_inside(spooled.source, event.path)
            key = f"{self._prefix}/{folder}{event.path}"
            return _Stored(event, (self._store.put_file(key, path, content_type=_content_type(path)),))
        except (ProtocolError, ChecksumMismatch, FileNotFoundError, IsADirectoryError) as error:
            return _Stored(event, refused=f"{event.type} {event.path} of step {_step(event)} was not kept: {error}")

    def _upload_checkpoint(self, event: CheckpointEvent, source: Path) -> tuple[StoredFile, ...]:
        entries: list[tuple[str, FileEntry | None]] = [(entry.path, entry) for entry in event.files]
        if event.kind == "state" and not (source / MANIFEST).exists():
            raise FileNotFoundError("a state without its manifest cannot be resumed from")
        if (source / MANIFEST).exists() and MANIFEST not in dict(entries):
            entries.append((MANIFEST, None))
        return tuple(
            self._put_verified(f"{self._prefix}/{event.path}/{name}", path_inside(source, name), entry)
            for name, entry in entries
        )

    def _put_verified(self, key: str, path: Path, entry: FileEntry | None) -> StoredFile:
        if entry is not None and path.stat().st_size != entry.size_bytes:
            raise ChecksumMismatch(f"{entry.path} has {path.stat().st_size} bytes, announced were {entry.size_bytes}")
        for _ in range(_UPLOAD_TRIES - 1):  # Bytes damaged on the way are sent again; a damaged file stays damaged.
            try:
                return self._store.put_file(key, path, sha256=entry.sha256 if entry else None)
            except ChecksumMismatch:
                continue
        return self._store.put_file(key, path, sha256=entry.sha256 if entry else None)

    def _insert(self, session: Session, stored: _Stored) -> list[tuple[str, Document]]:
        """Inserts one event's row and returns what to tell of it."""
        if stored.refused is not None:
            return [("log", {"level": "warning", "message": stored.refused})]
        if isinstance(stored.event, CheckpointEvent):
            return self._insert_checkpoint(session, stored.event, stored.files)
        if isinstance(stored.event, SampleEvent):
            return self._insert_sample(session, stored.event, stored.files[0])
        return self._insert_artifact(session, stored.event, stored.files[0])

    def _insert_checkpoint(
        self, session: Session, event: CheckpointEvent, files: Sequence[StoredFile]
    ) -> list[tuple[str, Document]]:
        claim, prefix = self._claim, f"{self._prefix}/{event.path}"
        known = select(Checkpoint.id).where(
            Checkpoint.job_id == claim.job_id,
            Checkpoint.epoch == claim.epoch,
            Checkpoint.kind == event.kind,
            Checkpoint.step == event.step,
        )
        if session.scalar(known) is not None:  # The transaction is repeated because its answer got lost.
            return []
        format_ = formats_in(entry.path for entry in event.files) if event.kind == "adapter" else None
        id_ = checkpoints.add(
            session,
            claim.job_id,
            claim.epoch,
            step=event.step,
            kind=event.kind,
            object_prefix=prefix,
            files=[
                {"path": file.key.removeprefix(f"{prefix}/"), "sha256": file.sha256, "size_bytes": file.size_bytes}
                for file in files
            ],
            spec_digest=claim.spec_digest,
            eval_reward=event.eval_reward,
            format=format_,
        )
        told = {"id": id_, "step": event.step, "kind": event.kind, "format": format_, "eval_reward": event.eval_reward}
        return [("checkpoint", {**told, "size_bytes": sum(file.size_bytes for file in files)})]

    def _insert_sample(self, session: Session, event: SampleEvent, file: StoredFile) -> list[tuple[str, Document]]:
        shown = event.model_dump(exclude={"type", "path"})
        id_ = samples.put(
            session,
            self._claim.job_id,
            self._claim.epoch,
            event.path,
            object_key=file.key,
            content_type=_content_type(Path(event.path)),
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            **shown,
        )
        return [("sample", {"id": id_, **shown})]

    def _insert_artifact(self, session: Session, event: ArtifactEvent, file: StoredFile) -> list[tuple[str, Document]]:
        content_type = _content_type(Path(event.path))
        artifacts.put(session, self._claim.job_id, self._claim.epoch, event.path, file, content_type)
        return [("artifact", {"name": event.path, "size_bytes": file.size_bytes, "sha256": file.sha256})]


def _link(run_dir: Path, relative: str, folder: Path, name: str) -> None:
    """Links a file of the run folder; one that is missing or outside is left out and refused later, by name.

    On a machine that is too busy to read in time, the trainer may be pruning the checkpoint just now.
    """
    try:
        source, target = path_inside(run_dir, relative), path_inside(folder, name)
    except ProtocolError:
        return
    if not source.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        return
    except OSError:  # A file system without hard links.
        with suppress(FileNotFoundError):
            shutil.copyfile(source, target)


def _content_type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _step(event: FileEvent) -> int | None:
    return None if isinstance(event, ArtifactEvent) else event.step
