"""What must hold after a run, whatever happened. Each function returns what it found wrong, a line each, or nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil
from chaos_service import STEPS
from minio import Minio
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.tables import Artifact, Attempt, Checkpoint, Event, Job, LogLine, Metric, Sample

ENOUGH_WISHES = 3


class Evidence:
    """The rows and objects that a run has left."""

    def __init__(
        self,
        session: Session,
        client: Minio,
        bucket: str,
        trainers: list[int],
        scenario: Path,
        may_end: Mapping[str, frozenset[str]],
    ) -> None:
        self.stopped_early: Collection[str] = ()
        self.session = session
        self.may_end = may_end
        self.trainers = trainers
        self.scenario = scenario
        self._client = client
        self._bucket = bucket

    @property
    def jobs(self) -> Sequence[Job]:
        return self.session.scalars(select(Job)).all()

    def keys(self) -> set[str]:
        return {str(found.object_name) for found in self._client.list_objects(self._bucket, recursive=True)}

    def read(self, key: str) -> bytes:
        answer = self._client.get_object(self._bucket, key)
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    def read_or_none(self, key: str) -> bytes | None:
        return self.read(key) if key in self.keys() else None

    def living_checkpoints(self) -> Sequence[Checkpoint]:
        return self.session.scalars(select(Checkpoint).where(Checkpoint.deleted_at.is_(None))).all()


def differences(what: str, found: Iterable[Hashable], expected: Iterable[Hashable]) -> list[str]:
    """Returns what is missing, and what is there and should not be; of what should be there once, the second too."""
    has, wants = Counter(found), Counter(expected)
    missing, unexpected = list((wants - has).elements()), list((has - wants).elements())
    return [f"{what}: missing {missing}, not expected {unexpected}"] * bool(missing or unexpected)


def every_job_ended_as_its_user_asked(found: Evidence) -> list[str]:
    """`may_end` follows from the answers to what the user asked, and so from the seed and the moment."""
    return [
        f"{job.id} is {job.status}, its user asked for {sorted(found.may_end[job.id])}: {job.status_reason}"
        for job in found.jobs
        if job.status not in found.may_end[job.id]
    ]


def wishes_are_heeded(found: Evidence) -> list[str]:
    """A trainer may finish before it hears of a wish, but not all of those that had half of their steps before them."""
    ends = {job.status for job in found.jobs if job.id in found.stopped_early}
    ignored = ends == {"succeeded"} and len(found.stopped_early) >= ENOUGH_WISHES
    return [f"all of {sorted(found.stopped_early)} succeeded, though they were to be cancelled or paused"] * ignored


def every_step_has_its_metric_once(found: Evidence) -> list[str]:
    """The trainer's loss of step s is 0.1·(1 + … + s): one step lost or done twice changes all that follow.

    A job that was ended early has those of its first steps, up to its last checkpoint at least.
    """
    wrong: list[str] = []
    for job in found.jobs:
        rows = found.session.scalars(select(Metric).where(Metric.job_id == job.id, Metric.name == "loss")).all()
        states = [row.step for row in found.living_checkpoints() if row.job_id == job.id and row.kind == "state"]
        last = STEPS if job.status == "succeeded" else max([0, *states, *(row.step for row in rows)])
        expected = [(step, step * (step + 1) / 2 / 10) for step in range(1, last + 1)]
        lines = differences(f"loss of {job.id}", [(row.step, row.value) for row in rows], expected)
        wrong += [f"{line}\n{attempts_of(found, job.id)}" for line in lines]
    return wrong


def events_are_numbered_without_gap(found: Evidence) -> list[str]:
    wrong: list[str] = []
    for job in found.jobs:
        numbers = found.session.scalars(select(Event.seq).where(Event.job_id == job.id))
        wrong += differences(f"events of {job.id}", numbers, range(1, job.next_seq))
    return wrong


def every_log_is_whole(found: Evidence) -> list[str]:
    """Lines are numbered without a gap through all attempts, each line once; what a worker ended has a last line."""
    wrong: list[str] = []
    for job in found.jobs:
        lines = found.session.scalars(select(LogLine).where(LogLine.job_id == job.id).order_by(LogLine.number)).all()
        wrong += differences(f"lines of {job.id}", [line.number for line in lines], range(1, len(lines) + 1))
        last = {line.attempt: line.message for line in lines}
        if list(last) != sorted(last):
            wrong.append(f"lines of {job.id} are of attempts {list(last)}")
        ended = select(Attempt.number).where(Attempt.job_id == job.id, Attempt.exit_code.is_not(None))
        wrong += [
            f"the log of attempt {number} of {job.id} ends with {last.get(number)!r}"
            for number in found.session.scalars(ended)
            if not last.get(number, "").startswith(("event=attempt_ended ", "event=attempt_succeeded"))
        ]
    return wrong


def every_attempt_has_ended(found: Evidence) -> list[str]:
    """Attempts are numbered as the job counts them, none is open, and nobody holds a job that has ended."""
    wrong = [f"{job.id} is held by {job.lease_owner}" for job in found.jobs if job.lease_owner is not None]
    for job in found.jobs:
        rows = found.session.scalars(select(Attempt).where(Attempt.job_id == job.id)).all()
        wrong += differences(f"attempts of {job.id}", [row.number for row in rows], range(1, job.attempt + 1))
        wrong += [f"attempt {row.number} of {job.id} is open" for row in rows if row.finished_at is None]
    return wrong


def no_attempt_wrote_after_its_end(found: Evidence) -> list[str]:
    """A worker that slept beyond its lease has much to tell when it wakes up; none of it may get in."""
    wrong: list[str] = []
    for table in (Checkpoint, Metric):
        late = (
            select(table.job_id, Attempt.number, func.count())
            .join(Attempt, (Attempt.job_id == table.job_id) & (Attempt.epoch == table.epoch))
            .where(table.created_at > Attempt.finished_at)
            .group_by(table.job_id, Attempt.number)
        )
        rows = found.session.execute(late)
        wrong += [f"{count} {table.__tablename__} of {job} after the end of attempt {n}" for job, n, count in rows]
    return wrong


def every_checkpoint_is_whole(found: Evidence) -> list[str]:
    keys = found.keys()
    wrong: list[str] = []
    for row in found.living_checkpoints():
        for file in row.files:
            key = f"{row.object_prefix}/{file['path']}"
            if key not in keys:
                wrong.append(f"{row.id}: {key} is missing")
            elif (sha256 := hashlib.sha256(found.read(key)).hexdigest()) != file["sha256"]:
                wrong.append(f"{row.id}: {key} has sha256 {sha256}, its row says {file['sha256']}")
    return wrong


def every_adapter_is_the_undisturbed_one(found: Evidence) -> list[str]:
    """One adapter for each job that succeeded, with the bytes that the closed form gives for a run without any fault.

    A job whose worker died between its last commit and its end, after its user had asked to end it, has one too.
    """
    expected = b"x=%d" % (STEPS * (STEPS + 1) // 2)
    adapters = [row for row in found.living_checkpoints() if row.kind == "adapter"]
    bytes_ = [(row.job_id, found.read_or_none(f"{row.object_prefix}/{row.files[0]['path']}")) for row in adapters]
    have = {row.job_id for row in adapters}
    wanted = [job.id for job in found.jobs if job.status == "succeeded" or job.id in have]
    return differences("adapters", bytes_, [(job_id, expected) for job_id in wanted])


def no_trainer_is_left(found: Evidence) -> list[str]:
    """A pid may be a stranger's by now: a trainer of this run names its scenario."""
    left = [pid for pid in sorted(set(found.trainers)) if psutil.pid_exists(pid) and _is_ours(pid, found.scenario)]
    return [f"trainer {pid} still runs" for pid in left]


def _is_ours(pid: int, scenario: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and str(scenario) in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def only_broken_attempts_left_objects_without_a_row(found: Evidence) -> list[str]:
    """An object that no row names was uploaded by an attempt that was cut off, or belongs to a pruned checkpoint."""
    ended_well = {
        (row.job_id, row.epoch) for row in found.session.scalars(select(Attempt)) if row.outcome == "succeeded"
    }
    pruned = tuple(f"{row.object_prefix}/" for row in found.session.scalars(select(Checkpoint)) if row.deleted_at)
    return [
        f"no row names {key}"
        for key in orphans(found)
        if not key.startswith(pruned) and (not _attempt_of(key) or _attempt_of(key) in ended_well)
    ]


def attempts_of(found: Evidence, job_id: str) -> str:
    """Returns the job's attempts, a line each, for whoever looks into a failure."""
    rows = found.session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number))
    return "\n".join(
        f"    attempt {row.number}, epoch {row.epoch}, {row.worker}: from {row.resumed_from_step} to {row.last_step}, "
        f"{row.outcome} {row.reason['code'] if row.reason else ''}"
        for row in rows
    )


def orphans(found: Evidence) -> list[str]:
    """Returns the keys that no living row names."""
    named = {f"{row.object_prefix}/{file['path']}" for row in found.living_checkpoints() for file in row.files}
    named |= set(found.session.scalars(select(Sample.object_key))) | set(
        found.session.scalars(select(Artifact.object_key))
    )
    return sorted(found.keys() - named)


def _attempt_of(key: str) -> tuple[str, int] | None:
    """Returns job and epoch of `projects/P/jobs/J/EPOCH/…`."""
    parts = key.split("/")
    return (parts[3], int(parts[4])) if len(parts) > 5 and parts[2] == "jobs" and parts[4].isdigit() else None


INVARIANTS: tuple[Callable[[Evidence], list[str]], ...] = (
    every_job_ended_as_its_user_asked,
    wishes_are_heeded,
    every_step_has_its_metric_once,
    events_are_numbered_without_gap,
    every_log_is_whole,
    every_attempt_has_ended,
    no_attempt_wrote_after_its_end,
    every_checkpoint_is_whole,
    every_adapter_is_the_undisturbed_one,
    no_trainer_is_left,
    only_broken_attempts_left_objects_without_a_row,
)
