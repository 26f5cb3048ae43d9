"""What the picture of a plan shows, read from the figure: bars where steps are stochastic, as long as they reach."""

from __future__ import annotations

from typing import Any

import pytest

from egrpo.draw_plan import figure_of_plans, rows_of
from egrpo.methods import METHODS, MethodSpec
from egrpo.schedule import shifted_sigmas

SIGMAS = shifted_sigmas(16, 3.0)


def fields_of(method: MethodSpec) -> list[Any]:
    return figure_of_plans([method], SIGMAS).axes


def bars(axes: Any) -> list[tuple[float, float, float, bool]]:
    """Returns row, start, length and whether it is filled, of every bar that lies in the field of groups."""
    return [
        (round(bar.get_y() + bar.get_height() / 2), round(bar.get_x()), round(bar.get_width()), bar.get_hatch() is None)
        for bar in axes.patches
    ]


@pytest.mark.parametrize("name", METHODS)
def test_bars_are_the_stochastic_steps(name: str) -> None:
    method = METHODS[name](type=name)
    rows = rows_of(method, method.plan(SIGMAS))
    groups, entropies, dispersions = fields_of(method)
    expected = [
        (row, step.start, step.length, step in group.trained)
        for row, (_, group) in enumerate(rows)
        for step in group.steps
    ]
    assert bars(groups) == expected
    plan = method.plan(SIGMAS)
    assert [bar.get_height() for bar in entropies.patches] == [step.entropy for step in plan.steps]
    assert list(dispersions.lines[0].get_ydata()) == [step.dispersion for step in plan.steps]


def test_egrpo_by_hand() -> None:
    groups, entropies, _ = fields_of(METHODS["egrpo"](type="egrpo"))
    assert bars(groups) == [(i, i, length, True) for i, length in enumerate([1, 1, 2, 2, 2, 3, 3, 3])]
    # The anchor up to the branch, then the tail from the end of the merge to t = 0.
    assert [list(line.get_xdata()) for line in groups.lines[4:6]] == [[0, 1, 2], list(range(4, 17))]
    assert "threshold 2.2" in [text.get_text() for text in entropies.texts]


def test_one_group_in_an_update_shows_several_updates() -> None:
    fast, dance, flow = (METHODS[name](type=name) for name in ("flow_grpo_fast", "dance_grpo", "flow_grpo"))
    windows = [group.steps[0].start for _, group in rows_of(fast, fast.plan(SIGMAS))]
    assert len(set(windows)) == 4
    assert max(windows) + fast.window_size <= 8  # type: ignore[attr-defined]
    assert len({group.trained for _, group in rows_of(dance, dance.plan(SIGMAS))}) == 4
    assert len(rows_of(flow, flow.plan(SIGMAS))) == 1
    mix = METHODS["mix_grpo"](type="mix_grpo", updates_per_window=7)
    assert [label for label, _ in rows_of(mix, mix.plan(SIGMAS))] == [f"update {7 * k}" for k in (0, 4, 8, 12)]
