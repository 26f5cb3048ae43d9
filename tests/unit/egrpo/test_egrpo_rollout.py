"""The sweep: where tails start and end, what is shared, and that batching changes nothing."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from egrpo.models.adapter import PromptEmbeds
from egrpo.models.flux import FluxAdapter
from egrpo.rollout import Noise, Rollout, Sampler, roll_out
from egrpo.schedule import (
    GroupPlan,
    MergedStep,
    MergePlan,
    merge_plan,
    network_evaluations,
    shifted_sigmas,
    trained_latents,
)
from egrpo.sde import ode_step, sde_step

SIGMAS = shifted_sigmas(8, 3.0)
PLAN = merge_plan(SIGMAS, eta=0.7, active=range(4), entropy_threshold=2.6)
GROUP = 3


class LinearModel:
    """A closed-form velocity, a different one for every prompt, that writes down every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, int]] = []

    def velocity(self, x_BNC: Tensor, t: float, embeds: PromptEmbeds, guidance: float) -> Tensor:
        self.calls.append((t, len(x_BNC)))
        return x_BNC * (t + embeds.tensors["shift_B1"][:, :, None]) - guidance


def branches(plan: MergePlan, strides: tuple[int, ...] = (1,)) -> tuple[GroupPlan, ...]:
    return tuple(GroupPlan((step,), (step,), strides) for step in plan.steps)


def normal(seed: int) -> Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(tuple(shape), generator=generator)


def sweep(
    plan: MergePlan = PLAN,
    micro_batch: int = 1000,
    model: LinearModel | None = None,
    seed: int = 0,
    groups: tuple[GroupPlan, ...] | None = None,
    members: int = 1,
    draws_anchor: bool = True,
) -> tuple[Rollout, LinearModel]:
    model = model or LinearModel()
    embeds = PromptEmbeds({"shift_B1": torch.tensor([[0.1], [0.4]])})
    x_PXNC = torch.randn(2, members, 4, 8, generator=torch.Generator().manual_seed(seed))
    sampler, groups = Sampler(model, 0.5, micro_batch), groups or branches(plan)
    rollout = roll_out(sampler, plan, groups, x_PXNC, embeds, GROUP, noise=normal(seed), draws_anchor=draws_anchor)
    return rollout, model


def ode(x: Tensor, prompt: int, indices: list[int]) -> Tensor:
    """The plain ODE of the closed-form velocity along some times of the schedule, written out."""
    for i, j in itertools.pairwise(indices):
        x = ode_step(x, x * (SIGMAS[i] + (0.1, 0.4)[prompt]) - 0.5, SIGMAS[i], SIGMAS[j])
    return x


def test_merges_longer_than_one_step_are_tested_here() -> None:
    assert [step.length for step in PLAN.steps] == [1, 1, 2, 2]


def test_every_tail_follows_the_ode_from_the_end_of_its_merge_to_zero() -> None:
    rollout, _ = sweep()
    for a, branch in enumerate(rollout.transitions):
        for p in range(2):
            for g in range(GROUP):
                x = ode(branch.x_next_PGNC[p, g], p, list(range(branch.step.start + branch.step.length, 9)))
                torch.testing.assert_close(rollout.tails_AKPGNC[a, 0, p, g], x)
    assert SIGMAS[8] == 0


def test_branches_leave_the_anchor() -> None:
    rollout, _ = sweep()
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([0.1, 0.4])[:, None, None]
    anchors = []
    for i in range(8):
        anchors.append(x)
        x = ode_step(x, x * (SIGMAS[i] + shift) - 0.5, SIGMAS[i], SIGMAS[i + 1])
    torch.testing.assert_close(rollout.anchor_PNC, x)
    for branch in rollout.transitions:
        torch.testing.assert_close(branch.x_PXNC[:, 0], anchors[branch.step.start])


def test_branching_costs_no_forward_and_a_step_index_is_one_batch() -> None:
    rollout, model = sweep()
    # Anchors and every tail that has begun: 2 prompts, 3 members, merges ending at 1, 2, 4 and 5.
    assert [count for _, count in model.calls] == [2, 8, 14, 14, 20, 26, 26, 26]
    assert [t for t, _ in model.calls] == SIGMAS[:8]
    expected = network_evaluations(PLAN, branches(PLAN), GROUP)
    assert rollout.network_evaluations == 2 * expected == sum(count for _, count in model.calls)


@pytest.mark.parametrize("draws_anchor", [True, False])
@pytest.mark.parametrize("members", [1, GROUP])
@pytest.mark.parametrize("kind", ["window", "gaps", "granularities", "whole"])
def test_evaluations_are_foretold_for_every_kind_of_group(kind: str, members: int, draws_anchor: bool) -> None:
    steps = {"window": single_steps(2, 5), "gaps": (single_steps(1, 2)[0], PLAN.steps[3]), "whole": single_steps(0, 8)}
    groups = branches(PLAN, (1, 2, 3)) if kind == "granularities" else (GroupPlan(steps[kind], steps[kind][:1]),)
    rollout, model = sweep(groups=groups, members=members, draws_anchor=draws_anchor)
    expected = network_evaluations(PLAN, groups, GROUP, shares_noise=members == 1, draws_anchor=draws_anchor)
    assert rollout.network_evaluations == 2 * expected == sum(count for _, count in model.calls)
    latents = sum(transition.x_PXNC.shape[1] for transition in rollout.transitions)
    assert latents == trained_latents(groups, GROUP, shares_noise=members == 1)


def test_the_noise_is_the_only_difference_within_a_group() -> None:
    rollout, _ = sweep()
    branch = rollout.transitions[2]
    x_PNC = branch.x_PXNC[:, 0]
    v = x_PNC * (SIGMAS[2] + torch.tensor([0.1, 0.4])[:, None, None]) - 0.5
    scored = sde_step(
        x_PNC[:, None], v[:, None], SIGMAS[2], SIGMAS[4], t_1=SIGMAS[1], eta=0.7, x_next=branch.x_next_PGNC
    )
    noise = (branch.x_next_PGNC - scored.mean) / scored.std
    assert float(noise.std()) == pytest.approx(1, abs=0.15)
    assert not torch.equal(noise[:, 0], noise[:, 1])


@pytest.mark.parametrize("micro_batch", [1, 3, 7])
def test_micro_batches_change_nothing(micro_batch: int) -> None:
    whole, _ = sweep()
    split, model = sweep(micro_batch=micro_batch)
    assert max(count for _, count in model.calls) <= micro_batch
    torch.testing.assert_close(split.tails_AKPGNC, whole.tails_AKPGNC, rtol=1e-6, atol=1e-6)


def test_a_merge_that_ends_at_zero_has_no_tail() -> None:
    plan = merge_plan(SIGMAS, eta=0.7, active=[6, 7], merging="fixed", fixed_length=2)
    rollout, _ = sweep(plan)
    torch.testing.assert_close(rollout.tails_AKPGNC[0, 0], rollout.transitions[0].x_next_PGNC)
    torch.testing.assert_close(rollout.tails_AKPGNC[1, 0], rollout.transitions[1].x_next_PGNC)


def test_tails_stay_in_the_order_of_the_plan_when_a_later_branch_ends_first() -> None:
    steps = (merge_plan(SIGMAS, eta=0.7, active=[0], merging="fixed", fixed_length=5).steps[0],)
    steps += merge_plan(SIGMAS, eta=0.7, active=[1], merging="none").steps
    plan = MergePlan(tuple(SIGMAS), 0.7, steps)
    together, _ = sweep(plan)
    alone, _ = sweep(MergePlan(tuple(SIGMAS), 0.7, steps[:1]))
    torch.testing.assert_close(together.tails_AKPGNC[0], alone.tails_AKPGNC[0])


def single_steps(first: int, last: int) -> tuple[MergedStep, ...]:
    return merge_plan(SIGMAS, eta=0.7, active=range(first, last), merging="none").steps


def test_tails_of_every_granularity_end_at_zero() -> None:
    """Stride 3 from index 2: 5, 8; from 5: 8. The last step is as short as it must be."""
    plan = MergePlan(tuple(SIGMAS), 0.7, (single_steps(1, 2)[0], single_steps(3, 4)[0]))
    rollout, model = sweep(plan, groups=branches(plan, (1, 2, 3)))
    assert rollout.tails_AKPGNC.shape == (2, 3, 2, GROUP, 4, 8)
    paths = {1: [list(range(2, 9)), [2, 4, 6, 8], [2, 5, 8]], 3: [list(range(4, 9)), [4, 6, 8], [4, 7, 8]]}
    for a, transition in enumerate(rollout.transitions):
        for k, path in enumerate(paths[transition.step.start]):
            expected = ode(transition.x_next_PGNC[1, 2], 1, path)
            torch.testing.assert_close(rollout.tails_AKPGNC[a, k, 1, 2], expected)
    hops = sum(len(path) - 1 for group in paths.values() for path in group)
    assert rollout.network_evaluations == 2 * 8 + 2 * GROUP * hops == sum(count for _, count in model.calls)


def test_a_trajectory_is_stochastic_where_its_plan_says_and_deterministic_elsewhere() -> None:
    """A window over steps 2 to 4: one path up to it, three steps of their own for every member, then the ODE."""
    window = single_steps(2, 5)
    rollout, model = sweep(groups=(GroupPlan(window, window[:1] + window[2:]),), draws_anchor=False)
    first, last = rollout.transitions
    assert (first.step.start, last.step.start) == (2, 4), "only what is trained is kept"
    assert first.x_PXNC.shape == (2, 1, 4, 8)
    assert last.x_PXNC.shape == (2, GROUP, 4, 8)
    start = torch.randn(2, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(first.x_PXNC[1, 0], ode(start[1, 0], 1, [0, 1, 2]))
    torch.testing.assert_close(rollout.tails_AKPGNC[0, 0, 1, 2], ode(last.x_next_PGNC[1, 2], 1, [5, 6, 7, 8]))
    assert len(rollout.anchor_PNC) == 0
    # The common path ends where the group has left it.
    assert [count for _, count in model.calls] == [2, 2, 2, 6, 6, 6, 6, 6]
    noise = torch.randn(2, GROUP, 4, 8, generator=torch.Generator().manual_seed(0))
    drawn = sde_step(
        first.x_PXNC, first.x_PXNC * (SIGMAS[2] + torch.tensor([0.1, 0.4])[:, None, None, None]) - 0.5,
        SIGMAS[2], SIGMAS[3], t_1=SIGMAS[1], eta=0.7, noise=noise,
    )  # fmt: skip
    torch.testing.assert_close(first.x_next_PGNC, drawn.x_next)


def test_members_that_share_no_noise_have_paths_of_their_own() -> None:
    steps = single_steps(0, 8)
    rollout, model = sweep(groups=(GroupPlan(steps, steps),), members=GROUP, draws_anchor=False)
    assert [transition.x_PXNC.shape[1] for transition in rollout.transitions] == [GROUP] * 8
    assert [count for _, count in model.calls] == [2 * GROUP] * 8
    start = torch.randn(2, GROUP, 4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rollout.transitions[0].x_PXNC, start)
    assert torch.equal(rollout.transitions[4].x_PXNC, rollout.transitions[3].x_next_PGNC)


def test_the_measured_dispersion_is_that_of_the_latents() -> None:
    rollout, _ = sweep()
    for a, transition in enumerate(rollout.transitions):
        path = list(range(transition.step.start, transition.step.end + 1))
        x = torch.stack([ode(transition.x_PXNC[p, 0], p, path) for p in (0, 1)])
        assert rollout.dispersion_A[a] == pytest.approx(float(transition.x_next_PGNC.std() / x.std()), rel=1e-5)


def test_stop_is_asked_before_every_forward() -> None:
    asked = []
    embeds = PromptEmbeds({"shift_B1": torch.zeros(1, 1)})
    sampler = Sampler(LinearModel(), 0.0, 1, lambda: asked.append(1))
    sampler.ode(torch.zeros(3, 4, 8), SIGMAS, embeds, torch.zeros(3, dtype=torch.long))
    assert len(asked) == 3 * 8


def test_tails_of_the_network_batched_equal_one_at_a_time(random_flux: Path) -> None:
    """Every tail of a real transformer, drawn in one sweep, against that tail run alone."""
    model = FluxAdapter.load(str(random_flux))
    embeds = model.encode_prompts(["a red circle", "a blue square"])
    sampler = Sampler(model, 3.5, 1000)
    x_PXNC = model.initial_latents([1, 2])[:, None]
    rollout = roll_out(sampler, PLAN, branches(PLAN), x_PXNC, embeds, GROUP, noise=normal(0))
    for a, branch in enumerate(rollout.transitions):
        for p in range(2):
            for g in range(GROUP):
                alone = sampler.ode(
                    branch.x_next_PGNC[p, g][None], SIGMAS[branch.step.end :], embeds, torch.tensor([p])
                )
                torch.testing.assert_close(rollout.tails_AKPGNC[a, 0, p, g], alone[0], rtol=1e-5, atol=1e-5)
