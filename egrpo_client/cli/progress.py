"""How a running job looks: a live bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from egrpo_client.cli.output import console, duration_text, reason_text, say
from egrpo_client.exchange import JSON
from egrpo_client.watching import Update

LINE_EVERY_S = 10.0


class JobView(Protocol):
    """Shows updates of one job."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, update: Update) -> None:
        """Shows what is new."""


def job_view() -> JobView:
    """Returns the view that suits this terminal."""
    return LiveView(console) if console.is_terminal else LineView(console)


class Numbers:
    """The latest metric values of a job, gathered from its events."""

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}
        self.first_eval: float | None = None
        self.num_evals = 0

    def take(self, events: Sequence[JSON]) -> None:
        """Takes the metric events among the events."""
        for event in events:
            if event["type"] == "metric":
                values = event["data"].get("values", {})
                self.latest.update(values)
                self.num_evals += "eval_reward" in values
                if self.first_eval is None:
                    self.first_eval = values.get("eval_reward")

    def text(self) -> str:
        """Returns the rewards: that of training, and evaluation's with its change since the start."""
        parts = []
        if (reward := self.latest.get("reward_mean")) is not None:
            parts.append(f"reward {reward:.3f}")
        if (evaluated := self.latest.get("eval_reward")) is not None and self.first_eval is not None:
            change = f" ({evaluated - self.first_eval:+.3f})" if self.num_evals > 1 else ""
            parts.append(f"eval {evaluated:.3f}{change}")
        return "  ".join(parts)


class LiveView:
    """A bar with phase, step, rewards, speed and remaining time; log messages scroll above it."""

    def __init__(self, target: Console) -> None:
        self._console = target
        self._numbers = Numbers()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[steps]}"),
            TextColumn("{task.fields[rewards]}", style="green"),
            TextColumn("{task.fields[remaining]}", style="dim"),
        )
        # Drawn when something is new: nothing in it moves by itself, and ten drawings a second would cost the
        # trainer beside it more than the whole service does.
        self._progress = Progress(*columns, console=target, transient=False, auto_refresh=False)
        self._task = self._progress.add_task("waiting", total=None, steps="", rewards="", remaining="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, update: Update) -> None:
        """Moves the bar and prints new log messages above it."""
        self._numbers.take(update.events)
        for message in _messages(update.events):
            say(message, self._progress.console)
        progress = update.job.get("progress") or {}
        self._progress.update(
            self._task,
            description=f"{update.job['status']:<9} {update.job.get('phase') or '':<16}",
            completed=progress.get("step") or 0,
            total=progress.get("total_steps"),
            steps=_steps(progress),
            rewards=self._numbers.text(),
            remaining=_remaining(progress),
            refresh=True,
        )


class LineView:
    """Lines for a log file: every change of status or phase, and progress every ten seconds."""

    def __init__(self, target: Console) -> None:
        self._console = target
        self._numbers = Numbers()
        self._state: tuple[str, str] | None = None
        self._next_line_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def show(self, update: Update) -> None:
        """Prints a line where there is something to say."""
        self._numbers.take(update.events)
        for message in _messages(update.events):
            say(message, self._console)
        state = (update.job["status"], update.job.get("phase") or "")
        if state != self._state or time.monotonic() >= self._next_line_at:
            self._state = state
            self._next_line_at = time.monotonic() + LINE_EVERY_S
            progress = update.job.get("progress") or {}
            parts = [" ".join(filter(None, state)), _steps(progress), self._numbers.text(), _remaining(progress)]
            say("  ".join(part for part in parts if part), self._console)


def summary_line(job: JSON) -> str:
    """Returns how the job ended, with the reason where there is one."""
    reason = reason_text(job)
    return f"{job['id']} {job['status']}" + (f" — {reason}" if reason else "")


def _messages(events: Sequence[JSON]) -> list[str]:
    logs = [event["data"] for event in events if event["type"] == "log"]
    return [f"{data.get('level', 'info')}: {data.get('message', '')}" for data in logs if data.get("level") != "debug"]


def _steps(progress: JSON) -> str:
    if not progress.get("total_steps"):
        return ""
    return f"step {progress.get('step', 0)}/{progress['total_steps']}"


def _remaining(progress: JSON) -> str:
    parts = []
    if progress.get("steps_per_second"):
        parts.append(f"{progress['steps_per_second']:.2f} steps/s")
    if progress.get("eta_seconds") is not None:
        parts.append(f"{duration_text(progress['eta_seconds'])} left")
    return ", ".join(parts)
