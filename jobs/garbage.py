"""What the rows say of the object store: which keys they name, what is past its time, and the marks of orphans.

Keys are `projects/<project>/jobs/<job>/<epoch>/…`. An attempt uploads a file before it writes the row that names it, so
a key without a row is an orphan only when nobody can write that row any more: when its epoch is over, for ever. Only
the worker's collector calls this, for all projects; nothing here is behind an endpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, false, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.states import TERMINAL
from jobs.tables import Artifact, Checkpoint, Garbage, Job, Project, Sample

_AT_ONCE = 1000


@dataclass(frozen=True)
class Rules:
    """How long is kept what nothing asks to keep; None is for ever."""

    grace: timedelta
    states: timedelta | None
    samples: timedelta | None


@dataclass(frozen=True)
class Doomed:
    """A checkpoint that was deleted long enough ago for its files to go."""

    id: str
    keys: tuple[str, ...]
    size_bytes: int


@dataclass
class Holdings:
    """What the rows of one job name."""

    epoch: int
    is_held: bool
    is_past_states: bool
    is_past_samples: bool
    living: set[str] = field(default_factory=set)  # What users can ask for.
    leaving: set[str] = field(default_factory=set)  # Of deleted checkpoints.
    doomed: list[Doomed] = field(default_factory=list)
    num_old_states: int = 0  # Not pinned; a job that ended long ago needs none.
    num_samples: int = 0

    def may_yet_be_named(self, epoch: int) -> bool:
        """Returns whether an attempt of that epoch may be about to write the row of an object that it has uploaded."""
        return epoch > self.epoch or (epoch == self.epoch and self.is_held)


def projects(session: Session) -> list[str]:
    """Returns the ids of all projects."""
    return list(session.scalars(select(Project.id).order_by(Project.id)))


def jobs_of(session: Session, project_id: str, *, after: str, limit: int) -> list[str]:
    """Returns ids of a project's jobs, the oldest first."""
    statement = select(Job.id).where(Job.project_id == project_id, Job.id > after).order_by(Job.id).limit(limit)
    return list(session.scalars(statement))


def now(session: Session) -> datetime:
    """Returns the database's time."""
    moment: datetime = session.scalars(select(func.clock_timestamp())).one()
    return moment


def holdings(session: Session, project_id: str, job_ids: Collection[str], rules: Rules) -> Mapping[str, Holdings]:
    """Returns what the rows of these jobs name. To be asked after the store was listed.

    The jobs are read before their rows: an epoch that is over then will get no further row.
    """
    found = _jobs(session, project_id, job_ids, rules)
    is_due = func.coalesce(_past(Checkpoint.deleted_at, rules.grace), False)
    checkpoints = select(Checkpoint, is_due).where(Checkpoint.job_id.in_(found), Checkpoint.purged_at.is_(None))
    for checkpoint, due in session.execute(checkpoints):
        _add_checkpoint(found[checkpoint.job_id], checkpoint, is_due=due)
    for job_id, key in session.execute(select(Sample.job_id, Sample.object_key).where(Sample.job_id.in_(found))):
        found[job_id].living.add(key)
        found[job_id].num_samples += 1
    for job_id, key in session.execute(select(Artifact.job_id, Artifact.object_key).where(Artifact.job_id.in_(found))):
        found[job_id].living.add(key)
    return found


def _jobs(session: Session, project_id: str, job_ids: Collection[str], rules: Rules) -> dict[str, Holdings]:
    statement = select(
        Job.id,
        Job.epoch,
        Job.lease_owner.is_not(None),
        func.coalesce(_past(Job.finished_at, rules.states), False),
        func.coalesce(_past(Job.finished_at, rules.samples), False),
    ).where(Job.project_id == project_id, Job.id.in_(job_ids))
    return {
        id_: Holdings(epoch, held, states, samples) for id_, epoch, held, states, samples in session.execute(statement)
    }


def _add_checkpoint(job: Holdings, checkpoint: Checkpoint, *, is_due: bool) -> None:
    keys = tuple(f"{checkpoint.object_prefix}/{file['path']}" for file in checkpoint.files)
    if checkpoint.deleted_at is None:
        job.living.update(keys)
        job.num_old_states += checkpoint.kind == "state" and checkpoint.pinned_at is None
        return
    job.leaving.update(keys)
    if is_due:
        job.doomed.append(Doomed(checkpoint.id, keys, checkpoint.size_bytes))


def expire(session: Session, job_ids: Collection[str], rules: Rules) -> tuple[int, int]:
    """Marks the states of jobs that ended long ago as deleted, removes the rows of their samples, and counts both.

    The jobs are locked: one that is tried again meanwhile keeps what it goes on from.
    """
    states = samples = 0
    if rules.states is not None and (ended := _ended(session, job_ids, rules.states)):
        statement = update(Checkpoint).where(
            Checkpoint.job_id.in_(ended),
            Checkpoint.kind == "state",
            Checkpoint.pinned_at.is_(None),
            Checkpoint.deleted_at.is_(None),
        )
        marked = statement.values(deleted_at=func.clock_timestamp()).returning(Checkpoint.id)
        states = len(session.scalars(marked).all())
    if rules.samples is not None and (ended := _ended(session, job_ids, rules.samples)):
        samples = len(session.scalars(delete(Sample).where(Sample.job_id.in_(ended)).returning(Sample.id)).all())
    return states, samples


def _ended(session: Session, job_ids: Collection[str], age: timedelta) -> list[str]:
    statement = (
        select(Job.id)
        .where(Job.id.in_(job_ids), Job.status.in_(TERMINAL), _past(Job.finished_at, age))
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    )
    return list(session.scalars(statement))


def mark(session: Session, orphans: Mapping[str, int], grace: timedelta) -> set[str]:
    """Marks keys (with their sizes) as orphans and returns those that were marked as long ago as the grace period."""
    due: set[str] = set()
    for keys in chunks(sorted(orphans)):
        statement = insert(Garbage).values([{"object_key": key, "size_bytes": orphans[key]} for key in keys])
        seen = statement.on_conflict_do_update(
            index_elements=[Garbage.object_key], set_={"seen_at": func.clock_timestamp()}
        )
        returned = session.execute(seen.returning(Garbage.object_key, _past(Garbage.found_at, grace)))
        due |= {key for key, is_due in returned if is_due}
    return due


def due_among(session: Session, orphans: Collection[str], grace: timedelta) -> set[str]:
    """Returns the keys that `mark` would return, and marks none."""
    due: set[str] = set()
    for keys in chunks(sorted(orphans)):
        statement = select(Garbage.object_key).where(Garbage.object_key.in_(keys), _past(Garbage.found_at, grace))
        due |= set(session.scalars(statement))
    return due


def forget(session: Session, keys: Collection[str]) -> None:
    """Removes the marks of objects that are gone."""
    for some in chunks(sorted(keys)):
        session.execute(delete(Garbage).where(Garbage.object_key.in_(some)))


def forget_unseen(session: Session, since: datetime) -> None:
    """Removes the marks that a whole round, which began then, did not come upon again: their objects are gone."""
    session.execute(delete(Garbage).where(Garbage.seen_at < since))


def note_purged(session: Session, checkpoint_ids: Collection[str]) -> None:
    """Notes that the files of deleted checkpoints are gone."""
    session.execute(
        update(Checkpoint).where(Checkpoint.id.in_(checkpoint_ids)).values(purged_at=func.clock_timestamp())
    )


def _past(moment: Any, age: timedelta | None) -> ColumnElement[bool]:
    """Returns whether something is at least that long ago, for the database to say."""
    past: ColumnElement[bool] = false() if age is None else moment <= func.clock_timestamp() - age
    return past


def chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields the keys, as many at a time as a statement or a request to the store takes."""
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]
