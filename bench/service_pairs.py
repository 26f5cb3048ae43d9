"""What the service takes from its trainer, within one run: everything beside the trainer is halted and let go in turns.

    python bench/service_pairs.py --pairs 18

Runs a local stack, trains the example job with the real trainer, and watches it on a terminal as a user does. In one
half of every pair all processes of api, worker, servers and client are stopped (SIGSTOP), in the other they run, after
a while in which they catch up with what they missed; the trainer never notices but by its speed. Two runs after each
other differ by more than what is looked for, two halves of a minute hardly do. A step's time is divided by its network
evaluations, since steps draw active steps of different cost. What the halted half cannot show is the memory that the
service holds.
"""

import argparse
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
from service_cpu import ROOT, stack, wait_for_training, watching_client

BOOTSTRAP_DRAWS = 10_000
LOOK_S = 0.02
# What came in while the service was halted is worked off after it; it would be charged to the wrong half.
CATCH_UP_S = 5.0


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "quickstart.yaml")
    parser.add_argument("--pairs", type=int, default=18, help="pairs of a halted and a running half")
    parser.add_argument("--seconds", type=float, default=13.0, help="length of a half; the lease must outlive it")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "service-pairs")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    env = {**os.environ, "EGRPO_HOME": str(options.output / "stack")}
    with stack(env, options.output) as roots, watching_client(env, options) as client:
        wait_for_training(env)
        (path,) = Path(env["EGRPO_HOME"]).rglob("metrics.ndjson")
        halves = [halves_of_pair([*roots.values(), client.pid], path, options.seconds) for _ in range(options.pairs)]
    print(table(np.array(halves)))


def halves_of_pair(roots: list[int], path: Path, seconds: float) -> tuple[float, float]:
    """Returns seconds per network evaluation while the service is halted, and while it runs, in random order."""
    found = {}
    for is_halted in random.sample([True, False], 2):
        if is_halted:
            with halted(roots):
                found[is_halted] = pace(path, seconds)
        else:
            time.sleep(CATCH_UP_S)
            found[is_halted] = pace(path, seconds)
    return found[True], found[False]


def pace(path: Path, seconds: float) -> float:
    """Returns seconds per network evaluation of the steps that lie within the next `seconds` as a whole."""
    began, steps, evaluations, spent = time.monotonic(), num_lines(path), 0.0, 0.0
    known = steps
    while time.monotonic() < began + seconds:
        time.sleep(LOOK_S)
        rows = (
            [json.loads(line)["values"] for line in path.read_text().splitlines()[known:]] if grown(path, known) else []
        )
        for row in rows:
            known += 1
            # Of the first step the beginning lies before this half; evaluations have rows without a time.
            if known > steps + 1 and "seconds" in row:
                evaluations += row["network_evaluations"] + row["update_evaluations"]
                spent += row["seconds"]
    return spent / evaluations


def num_lines(path: Path) -> int:
    """Returns how many whole lines a file has."""
    return path.read_bytes().count(b"\n")


def grown(path: Path, known: int) -> bool:
    """Whether a file has more lines than are known."""
    return num_lines(path) > known


@contextmanager
def halted(roots: list[int]) -> Iterator[None]:
    """Stops all processes below the roots, but for trainers and what they started, inside the block."""
    processes = [process for root in roots for process in below(psutil.Process(root))]
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def below(process: psutil.Process) -> Iterator[psutil.Process]:
    """Yields a process and its descendants, parents first, and nothing of a trainer."""
    try:
        if "--events-fd" in process.cmdline():
            return
        children = process.children()
    except psutil.NoSuchProcess:
        return
    yield process
    for child in children:
        yield from below(child)


def table(seconds_PH: np.ndarray) -> str:
    """Returns a Markdown table: means, and the difference of speed with its 95 % interval over pairs."""
    change_P = seconds_PH[:, 0] / seconds_PH[:, 1] - 1
    rng = np.random.default_rng(0)
    draws = change_P[rng.integers(len(change_P), size=(BOOTSTRAP_DRAWS, len(change_P)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    halted_rate, running_rate = (1 / seconds_PH.mean(axis=0)).tolist()
    return (
        "| pairs | evaluations/s, service halted | service running | difference of speed | 95 % interval |\n"
        "|---:|---:|---:|---:|---|\n"
        f"| {len(change_P)} | {halted_rate:.1f} | {running_rate:.1f} | {change_P.mean():+.2%} | "
        f"{low:+.2%} … {high:+.2%} |"
    )


if __name__ == "__main__":
    main()
