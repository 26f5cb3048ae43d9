"""What is measured of a rollout and of an optimizer step; docs/metrics.md explains every name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from egrpo.advantage import Advantages
from egrpo.policy import UpdateStats
from egrpo.rollout import Rollout
from egrpo.schedule import GroupPlan
from egrpo.scoring import Scores, training_metrics


def rollout_metrics(
    scores: Scores,
    rollout: Rollout,
    groups: Sequence[GroupPlan],
    advantages: Advantages,
    passes_per_velocity: int,
    seconds: float,
) -> dict[str, float]:
    """Returns what a rollout and its rewards say, over all members and for each group's first stochastic step."""
    num_anchors = len(rollout.anchor_PNC)
    tails = scores.reward_R[num_anchors:]
    rewards_AKPG = tails.reshape(rollout.tails_AKPGNC.shape[:4])
    measured = {
        "reward_mean": float(tails.mean()),
        "reward_std": float(tails.std()),
        "reward_group_std": float(rewards_AKPG.std(axis=-1).mean()),
        "reward_best": float(tails.max()),
        "reward_worst": float(tails.min()),
        "passed_fraction": float(scores.passed_R[num_anchors:].mean()),
        **training_metrics(scores, slice(num_anchors, None), advantages.num_flat_by_reward),
        "zero_variance_groups": float(advantages.num_flat),
        "advantage_abs_mean": float(np.abs(advantages.values_APG).mean()),
        "num_active_steps": float(len(groups)),
        "network_evaluations": float(rollout.network_evaluations * passes_per_velocity),
        "images_per_second": len(scores.reward_R) / seconds,
        "rollout_seconds": seconds,
    }
    if num_anchors:
        measured["anchor_reward"] = float(scores.reward_R[:num_anchors].mean())
        measured["anchor_passed_fraction"] = float(scores.passed_R[:num_anchors].mean())
    for a, group in enumerate(groups):
        first = group.steps[0]
        measured[f"active_step/{first.start}/reward_mean"] = float(rewards_AKPG[a].mean())
        measured[f"active_step/{first.start}/reward_group_std"] = float(rewards_AKPG[a].std(axis=-1).mean())
        measured[f"active_step/{first.start}/entropy"] = first.entropy
    for group, dispersion in zip(groups, rollout.dispersion_A, strict=False):
        measured[f"active_step/{group.steps[0].start}/dispersion"] = dispersion
    return measured


def update_metrics(stats: UpdateStats) -> dict[str, float]:
    """Returns what an optimizer step measured."""
    return {
        "loss": stats.loss.loss,
        "kl": stats.loss.kl,
        "clip_fraction": stats.loss.clip_fraction,
        "ratio_deviation": stats.loss.ratio_deviation,
        "grad_norm": stats.grad_norm,
        "learning_rate": stats.learning_rate,
        "skipped_update": float(stats.is_skipped),
        "update_evaluations": float(stats.network_evaluations),
    }
