"""The objective: ratios, the shared gradient, and what contributes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from egrpo.advantage import Advantages, combined_advantages
from egrpo.config import LoRASpec, Surrogate
from egrpo.errors import NonFiniteError
from egrpo.lora import add_adapter, base_weights, folded_weights
from egrpo.loss import Objective, OldPolicy, PolicyLoss, score_step, step_weights
from egrpo.models.adapter import PromptEmbeds
from egrpo.models.flux import FluxAdapter
from egrpo.rollout import Rollout, Sampler, roll_out
from egrpo.schedule import GroupPlan, merge_plan, shifted_sigmas
from egrpo.sde import sde_step

SIGMAS = shifted_sigmas(8, 3.0)
PLAN = merge_plan(SIGMAS, eta=0.7, active=range(3), entropy_threshold=2.6)
GROUP = 4


class Setting:
    """A real transformer with an adapter that is not zero, one rollout, and made-up rewards."""

    def __init__(
        self,
        folder: Path,
        targets: str = "attention_mlp",
        groups: tuple[GroupPlan, ...] = tuple(GroupPlan((step,), (step,)) for step in PLAN.steps),
        members: int = 1,
    ) -> None:
        self.groups, self.members = groups, members
        self.model = FluxAdapter.load(str(folder))
        self.parameters = add_adapter(self.model, LoRASpec(rank=3, alpha=7), targets, seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for _, parameter in self.parameters:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        self.embeds = self.model.encode_prompts(["a red circle", "a blue square"])
        self.sampler = Sampler(self.model, 3.5, 100)
        with folded_weights(self.model.transformer):
            self.rollout = self.roll_out()
        rewards = np.random.default_rng(0).random((len(groups), 2, GROUP))
        self.advantages = combined_advantages([rewards[:, None]], [1], std_floor=0, clip=5)

    def roll_out(self) -> Rollout:
        generator = torch.Generator().manual_seed(2)
        return roll_out(
            self.sampler,
            PLAN,
            self.groups,
            self.model.initial_latents(list(range(2 * self.members))).unflatten(0, (2, self.members)),
            self.embeds,
            GROUP,
            noise=lambda shape: torch.randn(tuple(shape), generator=generator),
        )

    def gradient(
        self, micro_batch: int = 100, old: OldPolicy | None = None, *, runs_all: bool = False, **objective: Any
    ) -> Tensor:
        for _, parameter in self.parameters:
            parameter.grad = None
        settings = Objective(**{"clip_range": 1e-4, **objective})
        loss = PolicyLoss(self.model, Sampler(self.model, 3.5, micro_batch), settings, runs_all=runs_all)
        self.old = old or OldPolicy.unknown(self.rollout, settings.surrogate)
        self.stats = loss.accumulate(self.rollout, self.advantages, self.embeds, self.old)
        return self.flat_gradient()

    def flat_gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for _, p in self.parameters if p.grad is not None])


@pytest.fixture(scope="module")
def setting(random_flux: Path) -> Setting:
    return Setting(random_flux)


def test_replaying_the_rollout_gives_ratio_one(setting: Setting) -> None:
    """The log-probability of a transition when it was drawn, with folded weights, and when it is scored."""
    with torch.no_grad():
        for branch in setting.rollout.transitions:
            t, x_PNC = SIGMAS[branch.step.start], branch.x_PXNC[:, 0]
            with folded_weights(setting.model.transformer):
                v_drawn = setting.model.velocity(x_PNC, t, setting.embeds, 3.5)
            v_scored = setting.model.velocity(x_PNC, t, setting.embeds, 3.5)
            drawn, scored = (
                score_step(PLAN, branch.step, x_PNC, v, branch.x_next_PGNC).log_prob_PG for v in (v_drawn, v_scored)
            )
            assert float((torch.exp(scored - drawn) - 1).abs().max()) < 1e-6


def test_first_update_ratio_is_exactly_one(setting: Setting) -> None:
    setting.gradient()
    assert setting.stats.ratio_deviation == 0
    assert setting.stats.clip_fraction == 0


def per_sample_gradient(setting: Setting) -> Tensor:
    """One forward and backward for every sample of every transition, from the objective as it is written."""
    for _, parameter in setting.parameters:
        parameter.grad = None
    transitions = setting.rollout.transitions
    for transition in transitions:
        t, t_next = SIGMAS[transition.step.start], SIGMAS[transition.step.end]
        for p in range(2):
            for g in range(GROUP):
                x = transition.x_PXNC[p, min(g, transition.x_PXNC.shape[1] - 1)][None]
                v = setting.model.velocity(x, t, setting.embeds[torch.tensor([p])], 3.5)
                log_prob = sde_step(
                    x, v, t, t_next, t_1=SIGMAS[1], eta=0.7, x_next=transition.x_next_PGNC[p, g][None]
                ).log_prob[0]
                advantage = float(setting.advantages.values_APG[transition.group, p, g])
                (-advantage * torch.exp(log_prob - log_prob.detach()) / (len(transitions) * 2 * GROUP)).backward()
    return setting.flat_gradient()


def test_group_shared_gradient_equals_per_sample_gradient(setting: Setting) -> None:
    shared = setting.gradient()
    assert setting.stats.network_evaluations == 3 * 2
    alone = per_sample_gradient(setting)
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))
    assert float(alone.abs().max()) > 0


@pytest.mark.parametrize(("members", "evaluations"), [(1, 2 * (1 + GROUP)), (GROUP, 2 * 2 * GROUP)])
@pytest.mark.parametrize("micro_batch", [3, 100])
def test_gradient_of_a_trajectory_equals_per_sample_gradient(
    random_flux: Path, members: int, evaluations: int, micro_batch: int
) -> None:
    """Two of three stochastic steps trained under one advantage; the first shared by the group, or not."""
    steps = merge_plan(SIGMAS, eta=0.7, active=range(1, 4), merging="none").steps
    setting = Setting(random_flux, groups=(GroupPlan(steps, (steps[0], steps[2])),), members=members)
    batched = setting.gradient(micro_batch)
    assert setting.stats.network_evaluations == evaluations
    alone = per_sample_gradient(setting)
    torch.testing.assert_close(batched, alone, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))
    assert float(alone.abs().max()) > 0


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_micro_batches_give_the_same_gradient(setting: Setting, micro_batch: int) -> None:
    whole, split = setting.gradient(), setting.gradient(micro_batch)
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))


def test_groups_with_equal_rewards_contribute_nothing(setting: Setting) -> None:
    """Their rows are not even run unless all must be, and the mean is over all groups either way."""
    full = setting.advantages
    try:
        values, flat = full.values_APG.copy(), full.is_flat_AP.copy()
        values[:, 1], flat[:, 1] = 0, True
        setting.advantages = Advantages(values, flat)
        skipped = setting.gradient()
        assert setting.stats.network_evaluations == 3
        run = setting.gradient(runs_all=True)
        assert setting.stats.network_evaluations == 6
        torch.testing.assert_close(skipped, run, rtol=1e-4, atol=1e-6 * float(run.abs().max()))
    finally:
        setting.advantages = full


def test_later_passes_use_the_first_log_probabilities(setting: Setting) -> None:
    setting.gradient()
    shifted = [log_probs - 0.01 for log_probs in setting.old.log_probs_PG]
    setting.gradient(old=OldPolicy([log_probs.clone() for log_probs in shifted], []))
    assert setting.stats.ratio_deviation == pytest.approx(np.exp(0.01) - 1, rel=1e-3)
    assert setting.stats.clip_fraction == 1
    assert all(torch.equal(kept, given) for kept, given in zip(setting.old.log_probs_PG, shifted, strict=True))


@pytest.mark.parametrize("surrogate", ["ppo_clip", "grpo_guard", "flow_dppo"])
def test_what_is_remembered_beforehand_is_what_the_first_pass_notes(setting: Setting, surrogate: Surrogate) -> None:
    setting.gradient(surrogate=surrogate)
    noted = setting.old
    loss = PolicyLoss(setting.model, Sampler(setting.model, 3.5, 100), Objective(1e-4, surrogate=surrogate))
    remembered = OldPolicy.unknown(setting.rollout, surrogate)
    assert loss.remember(setting.rollout, setting.embeds, remembered, [1]) == 3
    for known, later in zip(noted.log_probs_PG, remembered.log_probs_PG, strict=True):
        assert later[0].isnan().all()
        torch.testing.assert_close(later[1], known[1], rtol=1e-6, atol=1e-6)
    assert len(remembered.means_PXNC) == (0 if surrogate == "ppo_clip" else 3)
    for known, later in zip(noted.means_PXNC, remembered.means_PXNC, strict=True):
        torch.testing.assert_close(later[1], known[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("surrogate", ["grpo_guard", "flow_dppo"])
def test_every_surrogate_starts_at_the_policy_gradient(setting: Setting, surrogate: Surrogate) -> None:
    """`flow_dppo` exactly; `grpo_guard` with the weight std/delta of every step."""
    weights = {step.start: PLAN.gaussian(step).std / (SIGMAS[step.start] - SIGMAS[step.end]) for step in PLAN.steps}
    expected = setting.gradient(step_weights=weights if surrogate == "grpo_guard" else {})
    found = setting.gradient(surrogate=surrogate)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    assert setting.stats.ratio_deviation == 0


def test_rescaled_steps_answer_alike_to_the_velocity() -> None:
    """weight * |d mean/d v| / std is one number for all steps of a plan, and the weights have mean 1."""
    weights = step_weights(PLAN)
    answers = [weights[step.start] * PLAN.gaussian(step).v_factor / PLAN.gaussian(step).std for step in PLAN.steps]
    assert answers == pytest.approx([answers[0]] * 3)
    assert sum(weights.values()) / 3 == pytest.approx(1)


def test_kl_is_zero_for_the_base_and_positive_for_another_policy(setting: Setting) -> None:
    setting.gradient(kl_weight=1.0)
    assert setting.stats.kl > 0
    assert setting.stats.network_evaluations == 6
    zeros = [parameter.detach().clone() for _, parameter in setting.parameters]
    try:
        with torch.no_grad():
            for _, parameter in setting.parameters:
                parameter.zero_()
        setting.gradient(kl_weight=1.0)
        assert setting.stats.kl == 0
    finally:
        with torch.no_grad():
            for (_, parameter), value in zip(setting.parameters, zeros, strict=True):
                parameter.copy_(value)


def test_folded_weights_are_the_same_policy_and_leave_no_trace(setting: Setting) -> None:
    x, embeds = setting.model.initial_latents([5, 6]), setting.embeds
    weights = {name: value.clone() for name, value in setting.model.transformer.state_dict().items()}
    with torch.no_grad():
        layered = setting.model.velocity(x, 0.8, embeds, 3.5)
        with folded_weights(setting.model.transformer):
            folded = setting.model.velocity(x, 0.8, embeds, 3.5)
        with base_weights(setting.model.transformer):
            base = setting.model.velocity(x, 0.8, embeds, 3.5)
    torch.testing.assert_close(folded, layered, rtol=1e-5, atol=1e-5)
    assert float((base - layered).abs().max()) > 1e-3
    assert all(torch.equal(value, weights[name]) for name, value in setting.model.transformer.state_dict().items())


def test_a_loss_that_is_not_finite_is_named(setting: Setting) -> None:
    full = setting.advantages
    try:
        setting.advantages = Advantages(np.full_like(full.values_APG, np.nan), full.is_flat_AP)
        with pytest.raises(NonFiniteError, match="active step 0 is nan"):
            setting.gradient()
    finally:
        setting.advantages = full


def test_no_guidance_where_the_model_embeds_none(random_flux_schnell: Path) -> None:
    model = FluxAdapter.load(str(random_flux_schnell))
    embeds: PromptEmbeds = model.encode_prompts(["a red circle"])
    x = model.initial_latents([1])
    with torch.no_grad():
        assert torch.equal(model.velocity(x, 0.5, embeds, 1.0), model.velocity(x, 0.5, embeds, 9.0))


@pytest.mark.parametrize("targets", ["attention", "attention_mlp", "all"])
def test_every_target_set_trains(random_flux: Path, targets: str) -> None:
    other = Setting(random_flux, targets)
    gradient = other.gradient()
    assert torch.isfinite(gradient).all()
    assert len(gradient) == sum(p.numel() for _, p in other.parameters)
