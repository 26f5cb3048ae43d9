"""Many who follow jobs: how often the database is asked for them, and what is missed when a wake-up is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from api_bench import PATIENCE_S, Bench
from sqlalchemy import text

from api import waker
from api.events import feed, reading
from api.events.feed import EventFeed
from api.events.schemas import EventList
from api.waker import Waker
from jobs import events
from jobs.errors import NotFound


def tell(bench: Bench, job: str) -> None:
    with bench.transaction() as session:
        events.append(session, job, "log", {"n": 1})


def tell_nobody(bench: Bench, job: str) -> None:
    """Appends an event whose wake-up is lost."""
    with bench.transaction() as session:
        session.execute(text("UPDATE jobs SET next_seq = next_seq + 1 WHERE id = :id"), {"id": job})
        row = (
            "INSERT INTO events (job_id, seq, type, data) SELECT id, next_seq - 1, 'log', '{}' FROM jobs WHERE id = :id"
        )
        session.execute(text(row), {"id": job})


async def next_event(bench: Bench, events_feed: EventFeed, job: str, after: int) -> EventList:
    with events_feed.follow(bench.project, job, after) as follower:
        while True:
            page = await events_feed.read(follower, 10)
            if page.data:
                return page
            assert await events_feed.wait(follower, PATIENCE_S), "nothing came"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were asked for in each reading."""
    counted: list[int] = []
    read_all = reading.read_all

    def counting(sessions: object, asked: list[object]) -> object:
        counted.append(len(asked))
        return read_all(sessions, asked)  # type: ignore[arg-type]

    monkeypatch.setattr(feed, "read_all", counting)
    return counted


def run(bench: Bench, scenario: Callable[[EventFeed], Awaitable[None]]) -> None:
    """Runs a scenario on a loop of its own, with a waker that listens and has woken everybody for that reason."""

    async def main() -> None:
        own, listens = Waker(bench.settings), asyncio.Event()
        wake_all = own._wake_all

        def noting() -> None:
            wake_all()
            listens.set()

        own._wake_all = noting  # type: ignore[method-assign]
        own.start()
        try:
            await asyncio.wait_for(listens.wait(), PATIENCE_S)
            await scenario(EventFeed(bench.services.sessions, own))
        finally:
            own.stop()

    asyncio.run(main())


async def all_wait(events_feed: EventFeed, number: int) -> None:
    """Returns when so many follow and each has read what there is."""

    def is_so() -> bool:
        return len(events_feed._followers) == number and events_feed._reading is None

    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


def test_hundreds_are_read_for_in_a_few_transactions(bench: Bench, readings: list[int]) -> None:
    jobs = [bench.submit()["id"] for _ in range(5)]

    async def scenario(events_feed: EventFeed) -> None:
        waiting = [asyncio.create_task(next_event(bench, events_feed, job, 1)) for job in jobs for _ in range(100)]
        await all_wait(events_feed, len(waiting))
        for job in jobs:
            tell(bench, job)
        pages = await asyncio.gather(*waiting)
        assert [page.data[0].seq for page in pages] == [2] * 500
        assert [page.job.id for page in pages] == [job for job in jobs for _ in range(100)]

    run(bench, scenario)
    assert len(readings) < 20, readings
    assert max(readings) <= len(jobs), "who stands at the same place of the same job is read for once"


def test_a_lost_wake_up_is_made_up_for_by_one_look_for_all(
    bench: Bench, readings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waker, "_LOOK_AGAIN_S", 1.0)
    quiet, lost = bench.submit()["id"], bench.submit()["id"]

    async def scenario(events_feed: EventFeed) -> None:
        others = [asyncio.create_task(next_event(bench, events_feed, quiet, 1)) for _ in range(50)]
        waiting = asyncio.create_task(next_event(bench, events_feed, lost, 1))
        await all_wait(events_feed, len(others) + 1)
        before = len(readings)
        tell_nobody(bench, lost)
        assert (await waiting).data[0].seq == 2
        assert readings[before:] == [1], "a look wakes nobody of a job where nothing happened"
        tell(bench, quiet)
        await asyncio.gather(*others)

    run(bench, scenario)


def test_each_is_told_of_its_own_job_alone(bench: Bench) -> None:
    job = bench.submit()["id"]

    async def scenario(events_feed: EventFeed) -> None:
        def ask(project: str) -> Awaitable[EventList]:
            async def read() -> EventList:
                with events_feed.follow(project, job, 0) as follower:
                    return await events_feed.read(follower, 10)

            return read()

        mine, others = await asyncio.gather(ask(bench.project), ask("prj_other"), return_exceptions=True)
        assert isinstance(mine, EventList)
        assert isinstance(others, NotFound)

    run(bench, scenario)
