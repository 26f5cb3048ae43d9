"""Removes from the store what nobody needs: in two phases, a mark now and the deletion after a grace period.

It walks through the jobs of each project and the objects under their keys, side by side, a batch of jobs at a time: the
store is listed, then rows are read, then marks are written, then objects are deleted; no transaction is open while the
store is asked. What an attempt is uploading is never touched (`jobs.garbage`). Being killed anywhere does no harm, and
neither does a second collector: everything can be done twice. Rows whose objects are missing are told and left alone,
and so are objects of projects that this database does not know.
"""

import heapq
import itertools
import logging
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from jobs import garbage
from jobs.db import SessionFactory, transaction
from jobs.errors import ObjectMissing
from jobs.garbage import Holdings, Rules
from jobs.settings import Settings
from jobs.store import ListedObject, ObjectStore, Upload

log = logging.getLogger(__name__)

_ROOT = "projects/"
_KEY = re.compile(r"projects/[^/]+/jobs/([^/]+)/(\d{1,9})/.+", re.DOTALL)
_JOBS_AT_ONCE = 50
_MOST_MISSING = 100  # With the wrong bucket every object is missing; so many tell as much as all.


@dataclass
class Report:
    """What a round found and did, or would do."""

    objects: int = 0
    orphans: int = 0
    states_expired: int = 0
    samples_expired: int = 0
    checkpoints_purged: int = 0
    uploads: int = 0
    uploads_aborted: int = 0
    removed: int = 0
    removed_bytes: int = 0
    refused: int = 0
    missing: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    finished: bool = False


def rules_of(settings: Settings) -> Rules:
    """Returns how long is kept what nothing asks to keep."""
    states, samples = settings.retain_states_days, settings.retain_samples_days
    return Rules(
        grace=timedelta(seconds=settings.gc_grace_seconds),
        states=None if states is None else timedelta(days=states),
        samples=None if samples is None else timedelta(days=samples),
    )


def collect(
    sessions: SessionFactory,
    store: ObjectStore,
    settings: Settings,
    *,
    stopping: threading.Event | None = None,
    dry_run: bool = False,
) -> Report:
    """Goes through the whole store once.

    Args:
        sessions: Makes database sessions.
        store: The object store.
        settings: Say what is kept for how long.
        stopping: Ends the round early; the next one begins anew.
        dry_run: Changes nothing, and reports what would be done.

    Raises:
        Unavailable: The store or the database is down; what was done is done.
    """
    collector = _Collector(sessions, store, rules_of(settings), dry_run=dry_run)
    collector.run(stopping or threading.Event())
    return collector.report


class _Collector:
    def __init__(self, sessions: SessionFactory, store: ObjectStore, rules: Rules, *, dry_run: bool) -> None:
        self._sessions = sessions
        self._store = store
        self._rules = rules
        self._dry_run = dry_run
        self.report = Report()

    def run(self, stopping: threading.Event) -> None:
        with transaction(self._sessions) as session:
            began = garbage.now(session)
            projects = garbage.projects(session)
        self.report.foreign = sorted(set(self._store.folders(_ROOT)) - set(projects))
        for project_id in projects:
            for batch in self._batches(project_id):
                if stopping.is_set():
                    return
                self._look_at(project_id, batch)
        self._abort_cut_off_uploads(projects)
        if not self._dry_run:
            with transaction(self._sessions) as session:
                garbage.forget_unseen(session, began)
        self.report.finished = True

    # --- the walk -----------------------------------------------------------------------------------------------------

    def _batches(self, project_id: str) -> Iterator[dict[str, list[ListedObject]]]:
        """Yields jobs with their objects: those that have rows, those that have objects, and those that have both."""
        with_rows: Iterator[tuple[str, list[ListedObject]]] = ((job_id, []) for job_id in self._jobs(project_id))
        merged = heapq.merge(with_rows, self._listed(project_id), key=lambda pair: pair[0])
        jobs = (
            (job_id, [found for _, objects in pairs for found in objects])
            for job_id, pairs in itertools.groupby(merged, key=lambda pair: pair[0])
        )
        while batch := dict(itertools.islice(jobs, _JOBS_AT_ONCE)):
            yield batch

    def _jobs(self, project_id: str) -> Iterator[str]:
        after = ""
        while True:
            with transaction(self._sessions) as session:
                ids = garbage.jobs_of(session, project_id, after=after, limit=_JOBS_AT_ONCE)
            if not ids:
                return
            yield from ids
            after = ids[-1]

    def _listed(self, project_id: str) -> Iterator[tuple[str, list[ListedObject]]]:
        prefix = f"{_ROOT}{project_id}/jobs/"
        for job_id, objects in itertools.groupby(self._store.objects(prefix), key=lambda found: _split(found.key)[0]):
            yield job_id, list(objects)

    # --- one batch ----------------------------------------------------------------------------------------------------

    def _look_at(self, project_id: str, batch: Mapping[str, Sequence[ListedObject]]) -> None:
        with transaction(self._sessions) as session:
            holdings = garbage.holdings(session, project_id, list(batch), self._rules)
        orphans = {
            found.key: found.size_bytes
            for job_id, objects in batch.items()
            for found in objects
            if _is_orphan(found.key, holdings.get(job_id))
        }
        self.report.objects += sum(map(len, batch.values()))
        self.report.orphans += len(orphans)
        due = self._due(orphans)
        self._expire(holdings)
        self._remove({key: orphans[key] for key in due})
        self._purge(holdings.values())
        self._tell_missing(project_id, holdings, {found.key for objects in batch.values() for found in objects})

    def _due(self, orphans: Mapping[str, int]) -> set[str]:
        if not orphans:
            return set()
        with transaction(self._sessions) as session:
            if self._dry_run:
                return garbage.due_among(session, orphans, self._rules.grace)
            return garbage.mark(session, orphans, self._rules.grace)

    def _expire(self, holdings: Mapping[str, Holdings]) -> None:
        old_states = [id_ for id_, job in holdings.items() if job.is_past_states and job.num_old_states]
        old_samples = [id_ for id_, job in holdings.items() if job.is_past_samples and job.num_samples]
        if self._dry_run:
            self.report.states_expired += sum(holdings[id_].num_old_states for id_ in old_states)
            self.report.samples_expired += sum(holdings[id_].num_samples for id_ in old_samples)
        elif old_states or old_samples:
            with transaction(self._sessions) as session:
                states, samples = garbage.expire(session, {*old_states, *old_samples}, self._rules)
            self.report.states_expired += states
            self.report.samples_expired += samples

    def _remove(self, orphans: Mapping[str, int]) -> None:
        """Deletes orphans and forgets their marks. One that the store keeps stays marked, and is tried again."""
        for keys in garbage.chunks(sorted(orphans)):
            refused = self._delete(keys)
            gone = [key for key in keys if key not in refused]
            self.report.removed += len(gone)
            self.report.removed_bytes += sum(orphans[key] for key in gone)
            if self._dry_run:
                continue
            for key in gone:
                log.info("event=orphan_removed key=%s", key)
            with transaction(self._sessions) as session:
                garbage.forget(session, gone)

    def _purge(self, jobs: Collection[Holdings]) -> None:
        """Removes the files of deleted checkpoints, save those that a living row names too."""
        doomed = {each: set(each.keys) - job.living for job in jobs for each in job.doomed}
        refused = self._delete(sorted(set().union(*doomed.values())))
        purged = [checkpoint for checkpoint, keys in doomed.items() if refused.isdisjoint(keys)]
        self.report.checkpoints_purged += len(purged)
        self.report.removed_bytes += sum(checkpoint.size_bytes for checkpoint in purged)
        if self._dry_run or not purged:
            return
        for checkpoint in purged:
            log.info("event=checkpoint_purged checkpoint_id=%s", checkpoint.id)
        with transaction(self._sessions) as session:
            garbage.note_purged(session, [checkpoint.id for checkpoint in purged])

    def _delete(self, keys: Collection[str]) -> set[str]:
        """Deletes objects, unless it is a dry run, and returns those that the store did not."""
        refused = {} if self._dry_run or not keys else self._store.delete_all(keys)
        for key, reason in refused.items():
            log.error("event=object_not_removed key=%s reason=%s", key, reason)
        self.report.refused += len(refused)
        return set(refused)

    def _tell_missing(self, project_id: str, holdings: Mapping[str, Holdings], listed: Collection[str]) -> None:
        """Reports living rows without their object. The rows are newer than the listing: both are asked again."""
        if len(self.report.missing) >= _MOST_MISSING:
            return
        suspects = {id_: keys for id_, job in holdings.items() if (keys := job.living.difference(listed))}
        gone = {id_: {key for key in keys if self._is_missing(key)} for id_, keys in suspects.items()}
        if not any(gone.values()):
            return
        with transaction(self._sessions) as session:
            again = garbage.holdings(session, project_id, [id_ for id_ in gone if gone[id_]], self._rules)
        for job_id, job in again.items():
            for key in sorted(gone[job_id] & job.living):
                log.error("event=object_missing job_id=%s key=%s", job_id, key)
                self.report.missing.append(key)

    def _abort_cut_off_uploads(self, projects: Sequence[str]) -> None:
        """Gives up uploads in parts that nobody can complete any more, marked and waited for like orphans."""
        cut_off: dict[str, Upload] = {}
        for upload in self._store.unfinished_uploads(_ROOT):
            project_id = upload.key.split("/")[1]
            job_id, epoch = _split(upload.key)
            if project_id not in projects or epoch is None:
                continue
            with transaction(self._sessions) as session:
                job = garbage.holdings(session, project_id, [job_id], self._rules).get(job_id)
            if job is None or not job.may_yet_be_named(epoch):
                cut_off[f"{upload.key}?uploadId={upload.id}"] = upload
        due = self._due(dict.fromkeys(cut_off, 0))
        self.report.uploads += len(cut_off)
        self.report.uploads_aborted += len(due)
        if self._dry_run or not due:
            return
        for name in due:
            self._store.abort(cut_off[name])
        with transaction(self._sessions) as session:
            garbage.forget(session, due)

    def _is_missing(self, key: str) -> bool:
        try:
            self._store.stat(key)
        except ObjectMissing:
            return True
        return False


def _split(key: str) -> tuple[str, int | None]:
    """Returns job and epoch of a key; of one that is none of ours the part where the job would be, and None."""
    match = _KEY.fullmatch(key)
    if match is None:
        return "/".join(key.split("/")[3:4]), None
    return match.group(1), int(match.group(2))


def _is_orphan(key: str, job: Holdings | None) -> bool:
    _, epoch = _split(key)
    if epoch is None:  # Nothing of ours writes such keys.
        return False
    if job is None:
        return True
    return key not in job.living and key not in job.leaving and not job.may_yet_be_named(epoch)
