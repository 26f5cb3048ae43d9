"""What the streams and long-polls of a process share, so that a thousand of them cost little more than ten.

Followers are woken by NOTIFY. Whoever is woken asks for its events, and whatever is asked for while one reading is
under way is read by the next: one transaction for all, one at a time, a few in a second. A wake-up that was missed is
made up for by one look for all of them every so often. No follower has a thread or a connection.

Everything here runs on the loop of the requests; only the readings themselves are in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from api.events.reading import Asked, read_all
from api.events.schemas import EventList
from api.waker import Waker
from jobs import events
from jobs.db import SessionFactory, transaction
from jobs.errors import DatabaseUnavailable, NotFound

# A lone event is told at once; of many, those of this time are read together.
_BETWEEN_READINGS_S = 0.05
_READ_AT_ONCE = 200
_BEHIND_ALL = 2**63


@dataclass(eq=False)
class Follower:
    """One that follows a job: where it is, and whether there may be more."""

    project_id: str
    job_id: str
    seen: int
    woken: asyncio.Event


class EventFeed:
    """Reads for all followers of the process."""

    def __init__(self, sessions: SessionFactory, waker: Waker) -> None:
        self._sessions = sessions
        self._waker = waker
        self._followers: set[Follower] = set()
        self._asked: list[tuple[Asked, asyncio.Future[EventList]]] = []
        self._reading: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def follow(self, project_id: str, job_id: str, after: int) -> Iterator[Follower]:
        """Registers a follower: enter before the first reading, so that nothing falls in between."""
        with self._waker.watch(job_id) as woken:
            follower = Follower(project_id, job_id, after, woken)
            self._followers.add(follower)
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
            try:
                yield follower
            finally:
                self._followers.discard(follower)
                if not self._followers and self._looking is not None:
                    self._looking.cancel()
                    self._looking = None

    async def read(self, follower: Follower, limit: int) -> EventList:
        """Returns what there is behind what the follower has seen.

        Raises:
            NotFound: the project has no such job.
            DatabaseUnavailable: the database cannot be asked.
        """
        answer: asyncio.Future[EventList] = asyncio.get_running_loop().create_future()
        self._asked.append((Asked(follower.project_id, follower.job_id, follower.seen, limit), answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        page = await answer
        follower.seen = int(page.next_cursor)
        return page

    async def wait(self, follower: Follower, timeout_s: float) -> bool:
        """Returns whether there may be more, or that the time is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(follower.woken.wait(), timeout_s)
        is_woken = follower.woken.is_set()
        follower.woken.clear()
        return is_woken

    async def _read(self) -> None:
        while self._asked:
            batch, self._asked = self._asked[:_READ_AT_ONCE], self._asked[_READ_AT_ONCE:]
            began = time.monotonic()
            asked = list(dict.fromkeys(each for each, _ in batch))
            task = asyncio.create_task(run_in_threadpool(read_all, self._sessions, asked))
            await asyncio.wait([task])
            found = _answers(task, asked)
            for each, answer in batch:
                if not answer.done():  # Its client is gone.
                    _give(answer, found[each])
            await asyncio.sleep(began + _BETWEEN_READINGS_S - time.monotonic())
        self._reading = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._waker.look_again_s)
            jobs = sorted({follower.job_id for follower in self._followers})
            try:
                last = await run_in_threadpool(self._last_numbers, jobs)
            except DatabaseUnavailable:  # Everybody is to find out: who waits in silence would wait for nothing.
                last = dict.fromkeys(jobs, _BEHIND_ALL)
            for follower in self._followers:
                if last.get(follower.job_id, 0) > follower.seen:
                    follower.woken.set()

    def _last_numbers(self, jobs: Sequence[str]) -> dict[str, int]:
        with transaction(self._sessions) as session:
            return events.last_numbers(session, jobs)


_Answer = EventList | BaseException


def _answers(task: asyncio.Task[list[EventList | NotFound]], asked: Sequence[Asked]) -> dict[Asked, _Answer]:
    """Returns what was found, or for everybody why nothing was."""
    error = task.exception()
    if error is not None:
        return dict.fromkeys(asked, error)
    return dict(zip(asked, task.result(), strict=True))


def _give(answer: asyncio.Future[EventList], found: _Answer) -> None:
    if isinstance(found, BaseException):
        answer.set_exception(found)
    else:
        answer.set_result(found)
