"""Workers that claim jobs of a long queue, each on a connection of its own: how long a claim takes.

What was claimed goes back to its place in the queue at once, so that all claims meet the same queue.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from itertools import repeat

import psycopg
from http_load import Measured

from jobs import leases
from jobs.db import SessionFactory, make_engine, make_session_factory, transaction
from jobs.leases import Claim
from jobs.settings import DatabaseSettings
from jobs.states import Status

LEASE = timedelta(seconds=90)
_STARTING_S = 8.0


def claims(num_claimers: int, every_s: float, seconds: float) -> Measured:
    """Returns what claims take of workers that each look for a job every so often, evenly spread.

    They share as many processes as there are cores: in one they would wait for its interpreter.
    """
    num_processes = os.cpu_count() or 1
    shares = [range(first, num_claimers, num_processes) for first in range(num_processes)]
    began = time.monotonic() + _STARTING_S
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as processes:
        parts = list(processes.map(_looking, shares, repeat((began, num_claimers, every_s, seconds))))
    return Measured([taken for part in parts for taken in part.seconds], sum(part.errors for part in parts))


def _looking(numbers: Sequence[int], plan: tuple[float, int, float, float]) -> Measured:
    """Runs the claimers of these numbers, from a time on that all processes know."""
    began, num_claimers, every_s, seconds = plan
    sessions = _sessions(len(numbers))
    taken: list[float] = []
    empty = 0

    def work(number: int) -> None:
        nonlocal empty
        _give_back(sessions, _claim(sessions, number))  # Warms up.
        for turn in range(int(seconds / every_s)):
            due = began + every_s * number / num_claimers + turn * every_s
            time.sleep(max(0.0, due - time.monotonic()))
            claim = _claim(sessions, number)
            taken.append(time.monotonic() - due)
            empty += claim is None
            _give_back(sessions, claim)

    with ThreadPoolExecutor(len(numbers)) as pool:
        list(pool.map(work, numbers))
    return Measured(taken, empty)


def herd(num_claimers: int, rounds: int) -> Measured:
    """Returns what claims take of workers that are all woken by the same hint."""
    sessions = _sessions(num_claimers)
    taken: list[float] = []
    empty = 0
    together = threading.Barrier(num_claimers)

    def work(number: int) -> None:
        nonlocal empty
        for _ in range(rounds):
            together.wait()
            began = time.monotonic()
            claim = _claim(sessions, number)
            taken.append(time.monotonic() - began)
            empty += claim is None
            together.wait()
            _give_back(sessions, claim)

    with ThreadPoolExecutor(num_claimers) as pool:
        list(pool.map(work, range(num_claimers)))
    return Measured(taken, empty)


def _sessions(num_claimers: int) -> SessionFactory:
    settings = DatabaseSettings(database_pool_size=num_claimers)  # type: ignore[call-arg]  # from the environment
    sessions = make_session_factory(make_engine(settings, application="bench-claimers"))

    def connect(_: int) -> None:
        with transaction(sessions) as session:
            session.connection()
            time.sleep(0.5)  # So that each gets one.

    with ThreadPoolExecutor(num_claimers) as pool:
        list(pool.map(connect, range(num_claimers)))
    return sessions


def _claim(sessions: SessionFactory, number: int) -> Claim | None:
    with transaction(sessions) as session:
        return leases.claim(session, f"bench-{number}", LEASE)


def _give_back(sessions: SessionFactory, claim: Claim | None) -> None:
    if claim is not None:
        with transaction(sessions) as session:
            job = leases.guard(session, claim.job_id, claim.epoch)
            leases.end(session, job, Status.QUEUED, None, phase="waiting_capacity")


def let_end(libpq_url: str, jobs: list[str]) -> None:
    """Ends running jobs, so that no more are held than there are claimers."""
    with psycopg.connect(libpq_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE jobs SET status = 'succeeded', lease_owner = NULL, lease_expires_at = NULL WHERE id = ANY(%s)",
            (jobs,),
        )
        connection.execute("VACUUM ANALYZE jobs")
