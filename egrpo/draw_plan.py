"""A plan as a picture: which steps of the schedule are stochastic, how far each reaches, its entropy and dispersion.

A row of the upper field is one group: a grey line for what its members share, a bar for every stochastic step, blue
lines for what each of them runs on its own by the ODE. A method that has one group in an update shows several updates.
The fields below give the entropy and the dispersion of every stochastic step, at its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from egrpo.methods import EGRPOMethod, MethodSpec
from egrpo.schedule import GroupPlan, MergePlan, entropy

# Okabe and Ito's palette, which colour-blind readers can tell apart; shapes and fillings differ too.
_SHARED, _OWN, _STOCHASTIC, _LIMIT = "0.45", "#0072B2", "#D55E00", "black"
_MAX_ROWS = 4
_BAR = 0.62


def draw_plans(path: Path, methods: Sequence[MethodSpec], sigmas: Sequence[float]) -> None:
    """Writes a picture of the first method's plan, and of the others' smaller below it."""
    figure_of_plans(methods, sigmas).savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.15)


def figure_of_plans(methods: Sequence[MethodSpec], sigmas: Sequence[float]) -> Figure:
    """Returns the picture; three fields (groups, entropy, dispersion) for each method, in their order."""
    main, others = methods[0], methods[1:]
    num_rows = (len(others) + 1) // 2
    with matplotlib.rc_context(
        {"font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "hatch.linewidth": 0.8}
    ):
        figure = Figure(figsize=(12, 6.4 + 4.4 * num_rows), layout="constrained")
        parts = figure.subfigures(1 + num_rows, 1, height_ratios=[6.4] + [4.4] * num_rows, squeeze=False)[:, 0]
        _draw_method(parts[0], main, sigmas, is_large=True)
        for row, part in enumerate(parts[1:]):
            pair = others[2 * row : 2 * row + 2]
            for cell, method in zip(part.subfigures(1, 2, squeeze=False)[0], pair, strict=False):
                _draw_method(cell, method, sigmas, is_large=False)
        _legend(figure, with_untrained=any(_has_untrained(method, sigmas) for method in methods))
        figure.draw_without_rendering()
    return figure


def rows_of(method: MethodSpec, plan: MergePlan) -> list[tuple[str, GroupPlan]]:
    """Returns the groups to show, with their labels: those of one update, or those of up to four updates."""
    updates = list(method.some_updates(plan).items())
    first = updates[0][1]
    if len(first) > 1:
        return [(f"group {index}", group) for index, group in enumerate(first)]
    chosen = {round(k * (len(updates) - 1) / (_MAX_ROWS - 1)) for k in range(_MAX_ROWS)}
    return [(f"update {updates[index][0]}", updates[index][1][0]) for index in sorted(chosen)]


def _has_untrained(method: MethodSpec, sigmas: Sequence[float]) -> bool:
    return any(group.steps != group.trained for _, group in rows_of(method, method.plan(sigmas)))


def _draw_method(part: Any, method: MethodSpec, sigmas: Sequence[float], *, is_large: bool) -> None:
    plan = method.plan(sigmas)
    ratios = [3.2, 1.5, 1.0] if is_large else [2.6, 1.3, 1.0]
    groups, entropies, dispersions = part.subplots(3, 1, sharex=True, height_ratios=ratios)
    _draw_groups(groups, method, plan)
    groups.set_title(_title(method, plan), loc="left")
    _draw_entropies(entropies, method, plan, is_large)
    _draw_dispersions(dispersions, method, plan, is_large)
    _label_times(dispersions, plan.sigmas, is_large)


def _title(method: MethodSpec, plan: MergePlan) -> str:
    fewest, most = method.network_evaluations(plan)
    count = str(most) if fewest == most else f"{fewest} to {most}"
    return f"{method.type}: {count} network evaluations a prompt"


def _draw_groups(axes: Any, method: MethodSpec, plan: MergePlan) -> None:
    rows = rows_of(method, plan)
    for y, (_, group) in enumerate(rows):
        _draw_paths(axes, y, group, len(plan.sigmas) - 1)
        for step in group.steps:
            is_trained = step in group.trained
            axes.barh(
                y, step.length - 0.1, left=step.start + 0.05, height=_BAR, edgecolor=_STOCHASTIC, zorder=3,
                color=_STOCHASTIC if is_trained else "white", hatch=None if is_trained else "////",
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="x", labelbottom=False)


def _draw_paths(axes: Any, y: float, group: GroupPlan, num_steps: int) -> None:
    """Draws the ODE's parts of a group, with a dot at every time where the network is asked."""
    first, last = group.steps[0].start, group.steps[-1].end
    axes.plot(range(first + 1), [y] * (first + 1), color=_SHARED, marker=".", markersize=4, linewidth=1.2)
    for before, after in zip(group.steps, group.steps[1:], strict=False):
        between = range(before.end, after.start + 1)
        axes.plot(between, [y] * len(between), color=_OWN, marker=".", markersize=4, linewidth=1.2)
    for k, stride in enumerate(group.strides):
        times = [*range(last, num_steps, stride), num_steps]
        offset = 0.0 if len(group.strides) == 1 else (k / (len(group.strides) - 1) - 0.5) * _BAR * 0.8
        axes.plot(times, [y + offset] * len(times), color=_OWN, marker=".", markersize=5, linewidth=1.2)


def _draw_entropies(axes: Any, method: MethodSpec, plan: MergePlan, is_large: bool) -> None:
    for step in plan.steps:
        axes.bar(step.start, step.entropy, width=0.55, color=_STOCHASTIC)
        if step.length > 1:
            alone = entropy(plan.sigmas, step.start, step.start + 1, plan.eta, plan.kernel)
            axes.plot([step.start - 0.275, step.start + 0.275], [alone] * 2, color=_LIMIT, linewidth=1.5)
    if any(step.length > 1 for step in plan.steps):
        axes.annotate("black: before merging", (1, 0), xycoords="axes fraction", xytext=(-4, 4),
                      textcoords="offset points", ha="right")  # fmt: skip
    if isinstance(method, EGRPOMethod) and method.merging == "adaptive":
        threshold = method.entropy_threshold
        axes.axhline(threshold, color=_LIMIT, linestyle="--", linewidth=1)
        axes.annotate(
            f"threshold {threshold:g}", (1, threshold), xycoords=("axes fraction", "data"), xytext=(-4, 3),
            textcoords="offset points", ha="right",
        )  # fmt: skip
    if is_large:
        _write_values(axes, [(step.start, step.entropy) for step in plan.steps], "{:.2f}")
    axes.set_ylabel("entropy H")
    axes.set_ylim(0, 1.25 * max(step.entropy for step in plan.steps))


def _draw_dispersions(axes: Any, method: MethodSpec, plan: MergePlan, is_large: bool) -> None:
    points = [(step.start, step.dispersion) for step in plan.steps]
    axes.plot(*zip(*points, strict=True), color=_STOCHASTIC, marker="D", markersize=4, linestyle="none")
    axes.axhline(1, color="0.7", linewidth=0.8)
    limit = getattr(method, "dispersion_limit", None)
    if limit is not None:
        axes.axhline(limit, color=_LIMIT, linestyle=":", linewidth=1)
        axes.annotate(
            f"limit {limit:g}", (1, limit), xycoords=("axes fraction", "data"), xytext=(-4, -3),
            textcoords="offset points", ha="right", va="top",
        )  # fmt: skip
    if is_large:
        _write_values(axes, points, "{:.3f}")
    axes.set_ylabel("dispersion")
    lowest, highest = min(value for _, value in points), max(limit or 1, *(value for _, value in points))
    axes.set_ylim(min(lowest, 1) - 0.12, highest + 0.12 * (highest - 1) + 0.02)


def _write_values(axes: Any, points: Sequence[tuple[float, float]], form: str) -> None:
    for x, y in points:
        axes.annotate(form.format(y), (x, y), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=7.5)


def _label_times(axes: Any, sigmas: Sequence[float], is_large: bool) -> None:
    """Labels every step with its index, and with its flow time where there is room."""
    last = len(sigmas) - 1
    every = 1 if last <= 30 else -(-last // 16)
    shown = [i for i in range(last + 1) if i % every == 0]
    axes.set_xticks(shown, [f"{i}\n{sigmas[i]:.3f}" if is_large else str(i) for i in shown])
    axes.set_xlabel("step of the schedule, and its flow time t: from noise to image" if is_large else "step")
    axes.set_xlim(-0.6, last + 0.6)


def _legend(figure: Figure, *, with_untrained: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D([], [], color=_SHARED, marker=".", label="shared by the group, ODE"),
        Patch(facecolor=_STOCHASTIC, edgecolor=_STOCHASTIC, label="stochastic and trained"),
        Patch(facecolor="white", edgecolor=_STOCHASTIC, hatch="////", label="stochastic, not trained"),
        Line2D([], [], color=_OWN, marker=".", label="each member's own, ODE"),
    ]
    kept = [handle for index, handle in enumerate(handles) if index != 2 or with_untrained]
    figure.legend(handles=kept, loc="outside upper center", ncols=len(kept), frameon=False)
