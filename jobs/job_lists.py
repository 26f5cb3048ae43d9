"""Lists of a project's jobs: which ones, in which order, page by page. An index serves every one of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, CompoundSelect, Select, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from jobs.ids import first_id_of
from jobs.pages import Page, cut, decode_cursor
from jobs.tables import Job

_BEFORE_ALL_IDS, _BEHIND_ALL_IDS = "", "~"
# The time in an id is that of whoever made it, `created_at` the database's.
_CLOCKS_DIFFER = timedelta(days=1)
_EARLIEST, _LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


@dataclass(frozen=True)
class JobFilter:
    """Which jobs: those for which everything holds that is given.

    Args:
        statuses: Any of these; none: any.
        name: Exactly this.
        base_model: Catalogue id, or repo@revision.
        created_after: At this time or later.
        created_before: Before this time.
        metadata: All of these pairs, whatever else a job has.
    """

    statuses: Collection[str] = ()
    name: str | None = None
    base_model: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yields what a row must be, all but the statuses."""
        if self.name is not None:
            yield Job.name == self.name
        if self.base_model is not None:
            yield Job.base_model == self.base_model
        if self.created_after is not None:
            yield Job.created_at >= self.created_after
            yield Job.id >= _id_at(self.created_after, -_CLOCKS_DIFFER)
        if self.created_before is not None:
            yield Job.created_at < self.created_before
            yield Job.id < _id_at(self.created_before, _CLOCKS_DIFFER)
        if self.metadata:
            yield Job.metadata_.contains(dict(self.metadata))


@dataclass(frozen=True)
class _Stretch:
    """The ids between two, neither included, in one of the two orders."""

    above: str
    below: str
    oldest_first: bool

    @classmethod
    def behind(cls, cursor: str | None, *, oldest_first: bool) -> _Stretch:
        above, below = _BEFORE_ALL_IDS, _BEHIND_ALL_IDS
        if cursor is None:
            return cls(above, below, oldest_first)
        last = decode_cursor(cursor)
        return cls(last, below, oldest_first) if oldest_first else cls(above, last, oldest_first)

    def of_ids(self, some: Select[str]) -> Select[str]:
        return some.where(Job.id > self.above, Job.id < self.below).order_by(self.sorted(Job.id))

    def of_status(self, some: Select[str], status: str) -> Select[str]:
        """Returns the ids of one status: a stretch of the index by status and id.

        As a comparison of pairs no other index serves it. Those of the ids alone would step over every newer job.
        """
        pair = tuple_(Job.status, Job.id)
        is_in_stretch = pair > tuple_(status, self.above), pair < tuple_(status, self.below)
        return some.where(*is_in_stretch).order_by(self.sorted(Job.status), self.sorted(Job.id))

    def sorted(self, column: InstrumentedAttribute[str]) -> ColumnElement[str]:
        return column.asc() if self.oldest_first else column.desc()


def page(
    session: Session,
    project_id: str,
    which: JobFilter,
    *,
    limit: int,
    cursor: str | None = None,
    oldest_first: bool = False,
) -> Page[Job]:
    """Returns jobs of the project, newest first unless told otherwise.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    stretch = _Stretch.behind(cursor, oldest_first=oldest_first)
    some = select(Job.id).where(Job.project_id == project_id, *which.conditions()).limit(limit + 1)
    ids: CompoundSelect[str] | Select[str]
    if which.statuses:
        ids = union_all(*(stretch.of_status(some, status) for status in sorted(set(which.statuses))))
    else:
        ids = stretch.of_ids(some)
    statement = select(Job).where(Job.id.in_(ids)).order_by(stretch.sorted(Job.id)).limit(limit + 1)
    return cut(list(session.scalars(statement)), limit, lambda job: job.id)


def _id_at(moment: datetime, shift: timedelta) -> str:
    """Returns the first id of a moment and a bit: ids sort by age, so an index of them finds a time, too."""
    return first_id_of("job", min(max(moment, _EARLIEST), _LATEST) + shift)
