"""The service under load, with the tables full: what requests, streams and claims take.

    python bench/service.py            100 000 jobs and 10 million metric rows; about eight minutes
    python bench/service.py --short    a hundredth of that, for a few seconds each

Fills a PostgreSQL of its own, runs API processes beside it (`--apis`), and prints a Markdown table: the load comes at a
fixed rate whatever the answers take, to each process in turn; streams are all on one. Load, database and API share this
machine's cores; the columns on the right say who used how much of one. On Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import resource
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from cpu_accounting import TICKS_PER_SECOND, snapshot
from http_load import Measured, Request, at_rate
from service_claims import claims, herd, let_end
from service_rows import Filled, Sizes, fill
from service_stack import Stack, api, servers
from service_streams import lags

from jobs import api_keys
from jobs.db import make_engine, make_session_factory, transaction
from jobs.settings import DatabaseSettings

GROUPS = ("API", "Postgres", "this")
OTHERS = "others"
NUM_KEYS = 8  # A key may make 100 requests a second for long.
SPEC = {
    "name": "posters",
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle", "a blue square left of a yellow triangle"]},
    "reward": {"components": [{"type": "shapes"}]},
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measured: Measured
    cores: dict[str, float]
    seconds: float
    goal_s: float | None = None

    @property
    def api_ms_each(self) -> float:
        """CPU time of the API processes for each answer, or each event that a stream told."""
        return 1000 * self.cores["API"] * self.seconds / max(1, len(self.measured.seconds))

    def __str__(self) -> str:
        times = [f"{1000 * self.measured.quantile(share):.0f}" for share in (0.5, 0.99, 1.0)]
        goal = "" if self.goal_s is None else f"{1000 * self.goal_s:.0f}: {self._verdict()}"
        used = [f"{self.cores[name]:.2f}" for name in (*GROUPS, OTHERS)] + [f"{self.api_ms_each:.1f}"]
        cells = [self.what, str(len(self.measured.seconds)), *times, goal, str(self.measured.errors), *used]
        return f"| {' | '.join(cells)} |"

    def _verdict(self) -> str:
        assert self.goal_s is not None
        p99 = self.measured.quantile(0.99)
        if p99 < self.goal_s:
            return "met"
        busiest = max(GROUPS, key=lambda name: self.cores[name])
        bound = f"{busiest} used {self.cores[busiest]:.2f} of {os.cpu_count()} cores"
        if self.cores[OTHERS] > 0.2:
            bound = f"{self.cores[OTHERS]:.1f} cores were used by others: measure on an idle machine"
        elif sum(self.cores.values()) > 0.9 * (os.cpu_count() or 1):
            bound = f"all {os.cpu_count()} cores are busy"
        return f"missed by {1000 * (p99 - self.goal_s):.0f}; {bound}"


class Bench:
    """The full database and the processes beside it, and the lines so far."""

    def __init__(self, stack: Stack, rows: Filled, keys: list[str], seconds: float) -> None:
        self.stack, self.rows, self.keys, self.seconds = stack, rows, keys, seconds
        self.table: list[Row] = []

    def measure(self, what: str, run: Callable[[], Measured], goal_s: float | None = None) -> None:
        """Runs one measure and adds its line."""
        began = time.monotonic()
        with self._accounted() as cores:
            measured = run()
        self.table.append(Row(what, measured, cores, time.monotonic() - began, goal_s))
        print(self.table[-1], file=sys.stderr, flush=True)

    def requests(self, what: str, of: Callable[[int], Request], rate: float, goal_s: float | None = None) -> None:
        """Measures requests at a rate, after two seconds of them that open connections and warm everything up."""
        asyncio.run(at_rate(self.stack.ports, of, rate, 2))
        self.measure(what, lambda: asyncio.run(at_rate(self.stack.ports, of, rate, self.seconds)), goal_s)

    def get(self, path: str, number: int) -> Request:
        """Returns a GET of one of the keys."""
        return Request("GET", path, self.keys[number % NUM_KEYS])

    @contextmanager
    def _accounted(self) -> Iterator[dict[str, float]]:
        cores: dict[str, float] = {}
        began, before, busy = time.monotonic(), snapshot(self.stack.roots), busy_s()
        yield cores
        after, seconds = snapshot(self.stack.roots), time.monotonic() - began
        used = {name: (after[name] - before[name]).cpu_s / seconds for name in after}
        cores.update({name: sum(used[each] for each in used if each.startswith(name)) for name in GROUPS})
        cores[OTHERS] = max(0.0, (busy_s() - busy) / seconds - sum(cores.values()))


def main() -> None:
    """Measures and prints the table."""
    options = _options()
    _allow_many_files()
    with servers(options.shared_buffers, options.apis) as database:
        began = time.monotonic()
        with psycopg.connect(database.libpq_url) as connection:
            connection.execute("SET synchronous_commit = off")
            rows = fill(connection, Sizes(options.jobs, options.queued, options.streams, options.metrics, 10_000))
        print(f"filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
        with api(database) as stack:
            bench = Bench(stack, rows, _keys(rows.projects[0]), options.seconds)
            measure_requests(bench, options)
            measure_streams(bench, options)
            measure_claims(bench, options)
    print(_table(bench, options))


def busy_s() -> float:
    """Returns the CPU seconds that everything on the machine has used."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = ticks[3:5]
    return (sum(ticks) - idle - waiting) / TICKS_PER_SECOND


def measure_requests(bench: Bench, options: argparse.Namespace) -> None:
    """Measures reading and submitting."""
    chosen = random.Random(1)
    jobs = [*chosen.sample(bench.rows.ended, 900), *chosen.choices(bench.rows.queued, k=100)]
    chosen.shuffle(jobs)
    lists = itertools.cycle(["", "?status=failed", "?name=posters-7", "?base_model=flux-1-dev"])
    rate = options.rate
    bench.requests(
        f"GET a job, {rate:.0f}/s", lambda n: bench.get(f"/v1/jobs/{jobs[n % len(jobs)]}", n), rate, goal_s=0.05
    )
    bench.requests(f"GET 50 jobs, {rate:.0f}/s", lambda n: bench.get(f"/v1/jobs{next(lists)}", n), rate)
    bench.requests(
        f"GET a job's metrics, {rate:.0f}/s",
        lambda n: bench.get(f"/v1/jobs/{bench.rows.ended[n % len(bench.rows.ended)]}/metrics", n),
        rate,
    )
    bench.requests(
        "GET metrics of 10 000 steps, thinned, 1/s", lambda n: bench.get(f"/v1/jobs/{bench.rows.long}/metrics", n), 1
    )
    body = json.dumps(SPEC).encode()
    bench.requests(
        f"POST a job, {options.posts:.0f}/s",
        lambda n: Request(
            "POST",
            "/v1/jobs",
            bench.keys[n % NUM_KEYS],
            f"Content-Type: application/json\r\nIdempotency-Key: {uuid.uuid4()}\r\n",
            body,
        ),
        options.posts,
    )


def measure_streams(bench: Bench, options: argparse.Namespace) -> None:
    """Measures how far behind streams are."""
    jobs = bench.rows.running
    streams = [
        Request("GET", f"/v1/jobs/{jobs[n % len(jobs)]}/events/stream?after=5", bench.keys[n % NUM_KEYS])
        for n in range(options.streams)
    ]
    told = jobs[: options.streams]

    def run() -> Measured:
        measured, opening_s = asyncio.run(
            lags(bench.stack.ports[0], bench.stack.libpq_url, streams, told, options.events, options.seconds)
        )
        print(f"{len(streams)} streams were opened in {opening_s:.1f} s", file=sys.stderr)
        return measured

    bench.measure(f"{len(streams)} streams, {options.events:.0f} events/s", run, goal_s=1.0)


def measure_claims(bench: Bench, options: argparse.Namespace) -> None:
    """Measures claiming."""
    let_end(bench.stack.libpq_url, bench.rows.running[50:])
    bench.measure("50 workers claim once a second", lambda: claims(50, 1.0, options.seconds), goal_s=0.1)
    bench.measure("50 workers claim at the same moment", lambda: herd(50, max(2, int(options.seconds / 2))))


def _keys(project: str) -> list[str]:
    engine = make_engine(DatabaseSettings())  # type: ignore[call-arg]  # from the environment
    with transaction(make_session_factory(engine)) as session:
        return [api_keys.create(session, project, f"bench-{number}") for number in range(NUM_KEYS)]


def _table(bench: Bench, options: argparse.Namespace) -> str:
    head = [
        "",
        "n",
        "p50 ms",
        "p99 ms",
        "most ms",
        "goal, p99 ms",
        "errors",
        "API",
        "Postgres",
        "load",
        "others",
        "API ms each",
    ]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * 4 + "---|" + "---:|" * 6]
    about = f"{options.jobs:,} jobs ({options.queued:,} queued), {options.metrics:,} metric rows; "
    about += f"{os.cpu_count()} cores ({platform.machine()}), shared by all"
    return "\n".join([about, "", *lines, *map(str, bench.table)])


def _allow_many_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--short", action="store_true", help="a hundredth of the rows, three seconds each")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--metrics", type=int, default=10_000_000)
    parser.add_argument("--apis", type=int, default=2, help="API processes, as there may be replicas")
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--events", type=float, default=200.0, help="events a second, of all streams together")
    parser.add_argument("--rate", type=float, default=200.0, help="GETs a second")
    parser.add_argument("--posts", type=float, default=100.0, help="POSTs a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measure")
    parser.add_argument("--shared-buffers", default="1GB")
    options = parser.parse_args()
    if options.short:
        options.jobs, options.queued, options.metrics, options.seconds = 4_000, 1_000, 100_000, 3.0
    return options


if __name__ == "__main__":
    main()
