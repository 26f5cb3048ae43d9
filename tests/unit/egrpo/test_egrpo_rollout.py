"""The sweep: where tails start and end, what is shared, and that batching changes nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from egrpo.models.adapter import PromptEmbeds
from egrpo.models.flux import FluxAdapter
from egrpo.rollout import Rollout, Sampler, roll_out
from egrpo.schedule import MergePlan, merge_plan, shifted_sigmas
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


def sweep(
    plan: MergePlan = PLAN, micro_batch: int = 1000, model: LinearModel | None = None, seed: int = 0
) -> tuple[Rollout, LinearModel]:
    model = model or LinearModel()
    embeds = PromptEmbeds({"shift_B1": torch.tensor([[0.1], [0.4]])})
    x_PNC = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed))
    sampler = Sampler(model, 0.5, micro_batch)
    generator = torch.Generator().manual_seed(seed)
    return roll_out(
        sampler, plan, plan.steps, x_PNC, embeds, GROUP, noise=partial(torch.randn, generator=generator)
    ), model


def test_merges_longer_than_one_step_are_tested_here() -> None:
    assert [step.length for step in PLAN.steps] == [1, 1, 2, 2]


def test_every_tail_follows_the_ode_from_the_end_of_its_merge_to_zero() -> None:
    rollout, _ = sweep()
    for a, branch in enumerate(rollout.branches):
        for p in range(2):
            for g in range(GROUP):
                x = branch.x_next_PGNC[p, g]
                for i in range(branch.step.start + branch.step.length, 8):
                    x = ode_step(x, x * (SIGMAS[i] + (0.1, 0.4)[p]) - 0.5, SIGMAS[i], SIGMAS[i + 1])
                torch.testing.assert_close(rollout.tails_APGNC[a, p, g], x)
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
    for branch in rollout.branches:
        torch.testing.assert_close(branch.x_PNC, anchors[branch.step.start])


def test_branching_costs_no_forward_and_a_step_index_is_one_batch() -> None:
    rollout, model = sweep()
    # Anchors and every tail that has begun: 2 prompts, 3 members, merges ending at 1, 2, 4 and 5.
    assert [count for _, count in model.calls] == [2, 8, 14, 14, 20, 26, 26, 26]
    assert [t for t, _ in model.calls] == SIGMAS[:8]
    assert rollout.network_evaluations == 2 * PLAN.network_evaluations(GROUP) == sum(count for _, count in model.calls)


def test_the_noise_is_the_only_difference_within_a_group() -> None:
    rollout, _ = sweep()
    branch = rollout.branches[2]
    v = branch.x_PNC * (SIGMAS[2] + torch.tensor([0.1, 0.4])[:, None, None]) - 0.5
    scored = sde_step(
        branch.x_PNC[:, None], v[:, None], SIGMAS[2], SIGMAS[4], t_1=SIGMAS[1], eta=0.7, x_next=branch.x_next_PGNC
    )
    noise = (branch.x_next_PGNC - scored.mean) / scored.std
    assert float(noise.std()) == pytest.approx(1, abs=0.15)
    assert not torch.equal(noise[:, 0], noise[:, 1])


@pytest.mark.parametrize("micro_batch", [1, 3, 7])
def test_micro_batches_change_nothing(micro_batch: int) -> None:
    whole, _ = sweep()
    split, model = sweep(micro_batch=micro_batch)
    assert max(count for _, count in model.calls) <= micro_batch
    torch.testing.assert_close(split.tails_APGNC, whole.tails_APGNC, rtol=1e-6, atol=1e-6)


def test_a_merge_that_ends_at_zero_has_no_tail() -> None:
    plan = merge_plan(SIGMAS, eta=0.7, active=[6, 7], merging="fixed", fixed_length=2)
    rollout, _ = sweep(plan)
    torch.testing.assert_close(rollout.tails_APGNC[0], rollout.branches[0].x_next_PGNC)
    torch.testing.assert_close(rollout.tails_APGNC[1], rollout.branches[1].x_next_PGNC)


def test_tails_stay_in_the_order_of_the_plan_when_a_later_branch_ends_first() -> None:
    steps = (merge_plan(SIGMAS, eta=0.7, active=[0], merging="fixed", fixed_length=5).steps[0],)
    steps += merge_plan(SIGMAS, eta=0.7, active=[1], merging="none").steps
    plan = MergePlan(tuple(SIGMAS), 0.7, steps)
    together, _ = sweep(plan)
    alone, _ = sweep(MergePlan(tuple(SIGMAS), 0.7, steps[:1]))
    torch.testing.assert_close(together.tails_APGNC[0], alone.tails_APGNC[0])


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
    generator = torch.Generator().manual_seed(0)
    rollout = roll_out(
        sampler,
        PLAN,
        PLAN.steps,
        model.initial_latents([1, 2]),
        embeds,
        GROUP,
        noise=partial(torch.randn, generator=generator),
    )
    for a, branch in enumerate(rollout.branches):
        for p in range(2):
            for g in range(GROUP):
                alone = sampler.ode(
                    branch.x_next_PGNC[p, g][None], SIGMAS[branch.step.end :], embeds, torch.tensor([p])
                )
                torch.testing.assert_close(rollout.tails_APGNC[a, p, g], alone[0], rtol=1e-5, atol=1e-5)
