"""`python -m egrpo plan` and `python -m egrpo train`. Torch is imported only by `train`, after the spec was checked.

Exit codes: 0 done, 2 bad spec or usage, 65 not finite, 66 model, 69 reward, 70 anything else, 75 stopped by SIGTERM
after a checkpoint was committed.

A stop is looked for before every micro-batch: what is unfinished is abandoned, the last finished optimizer step is
committed, and further SIGTERMs change nothing. That takes one micro-batch and one checkpoint: 1.6 and 3.9 s measured
with tiny-flux-shapes on two busy cores. Several processes also finish an update that is under way.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from egrpo import plan_command
from egrpo.errors import ConfigError, EGRPOError, StopRequested
from egrpo.events import EventWriter
from egrpo.spec_file import read_spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code of the process."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def train(options: argparse.Namespace) -> int:
    """Trains by a spec file; maps every way to end to an exit code and, but for a stop, to a last event."""
    output: Path = options.output
    try:
        events = EventWriter(output, options.events_fd)
    except OSError as error:
        print(f"egrpo: --events-fd {options.events_fd} cannot be written to: {error}", file=sys.stderr)
        return ConfigError.exit_code
    stop = _StopFlag()
    try:
        spec = read_spec(options.spec)
        # Both libraries announce on import what FLUX does not use, and draw bars of their own.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        from egrpo.train import train as train_run

        path = train_run(
            spec,
            output,
            resume=options.resume,
            events=events,
            check_stop=stop.check,
            show_progress=options.events_fd is None,
        )
        if os.environ.get("RANK", "0") == "0":
            print(_summary(path))
        return 0
    except StopRequested as stopped:
        events.log(str(stopped), level="warning")
        return stopped.exit_code
    except EGRPOError as error:
        events.error(error)
        print(f"egrpo: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the edge of the process: whatever it was, the supervisor must hear of it
        events.error(error)
        traceback.print_exc()
        return EGRPOError.exit_code
    finally:
        if "torch" in sys.modules:
            from egrpo.processes import Processes

            Processes.leave()


def _summary(path: Path) -> str:
    report = json.loads(path.read_text())
    low, high = report["paired_delta_ci95"]
    return (
        f"reward {report['eval_reward_before']:.3f} -> {report['eval_reward_after']:.3f} "
        f"(paired 95% interval of the difference {low:+.3f} to {high:+.3f}), "
        f"strict accuracy {report['strict_accuracy_before']:.1%} -> {report['strict_accuracy_after']:.1%}, "
        f"{report['seconds']:.0f} s; {path}"
    )


class _StopFlag:
    """Set by SIGTERM or SIGINT, looked at between micro-batches; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self._signal: int | None = None
        signal.signal(signal.SIGTERM, self._set)
        signal.signal(signal.SIGINT, self._set)

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number

    def check(self) -> None:
        """Raises `StopRequested` if a signal arrived."""
        if self._signal is not None:
            raise StopRequested(f"stopped by {signal.Signals(self._signal).name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m egrpo", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plan_command.add_parser(commands)
    train_parser = commands.add_parser("train", help="train an adapter by a spec file")
    train_parser.add_argument("spec", type=Path, metavar="SPEC.yaml")
    train_parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="the run's folder")
    train_parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint in RUN")
    train_parser.add_argument("--events-fd", type=int, default=None, metavar="N", help="write NDJSON events there")
    train_parser.set_defaults(command=train)
    return parser
