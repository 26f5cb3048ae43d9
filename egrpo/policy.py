"""The policy: base model, adapter, optimiser and average, and one optimizer step over a rollout.

Which weights are used when: the rollout draws with the trained adapter folded in; the update differentiates through
the adapter's own layers; evaluation and export use the average when the spec asks for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from egrpo.advantage import Advantages
from egrpo.checkpoint import Checkpoint
from egrpo.config import TrainingSpec, TrainSpec
from egrpo.ema import EMA
from egrpo.errors import CheckpointError, NonFiniteError
from egrpo.lora import adapter_tensors, add_adapter, folded_weights
from egrpo.loss import LossStats, Objective, PolicyLoss
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.rollout import Rollout, Sampler


@dataclass(frozen=True)
class UpdateStats:
    """What one optimizer step measured."""

    loss: LossStats
    grad_norm: float
    learning_rate: float


def learning_rate_at(step: int, spec: TrainingSpec) -> float:
    """Returns the learning rate of the optimizer step after `step` finished ones.

    It rises linearly over `warmup_steps`, then is constant or falls to 0 at `steps`, linearly or as a half cosine.
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    done = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    factors = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return spec.learning_rate * factors[spec.lr_schedule]


class Policy:
    """A base model with a trained adapter."""

    def __init__(
        self, model: ModelAdapter, spec: TrainSpec, default_targets: str, check_stop: Callable[[], None]
    ) -> None:
        training = spec.training
        self.model = model
        self._spec = training
        self.parameters = add_adapter(model, training.lora, default_targets, training.seed)
        self._optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self.parameters],
            lr=training.learning_rate,
            betas=(training.adam_beta1, training.adam_beta2),
            weight_decay=training.weight_decay,
        )
        self._ema = EMA(self.parameters, training.ema_decay) if training.ema_decay else None
        size = training.micro_batch_size or model.micro_batch_size
        self.sampler = Sampler(model, spec.method.guidance_scale, size, check_stop)
        self._loss = PolicyLoss(model, self.sampler, Objective(training.clip_range, training.kl_weight))

    def update(
        self,
        rollout: Rollout,
        advantages: Advantages,
        embeds: PromptEmbeds,
        step: int,
        old_log_probs_APG: Tensor | None = None,
    ) -> tuple[UpdateStats, Tensor]:
        """Makes one optimizer step; returns measurements and the old log-probabilities for further passes.

        Raises:
            NonFiniteError: the loss or the gradient norm is not finite; the parameters are as before.
        """
        rate = learning_rate_at(step, self._spec)
        self._optimizer.param_groups[0]["lr"] = rate
        for _, parameter in self.parameters:
            # Always there, also when no group has anything to say: the optimizer's momentum then acts alone, and acts
            # alike before and after a resume.
            parameter.grad = torch.zeros_like(parameter)
        stats, log_probs_APG = self._loss.accumulate(rollout, advantages, embeds, old_log_probs_APG)
        parameters = [parameter for _, parameter in self.parameters]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._spec.max_grad_norm))
        if not math.isfinite(norm):
            raise NonFiniteError(f"the gradient norm of optimizer step {step + 1} is {norm}")
        self._optimizer.step()
        if self._ema is not None:
            self._ema.update()
        return UpdateStats(stats, norm, rate), log_probs_APG

    @contextmanager
    def rollout_weights(self) -> Iterator[None]:
        """The trained adapter, in its fastest form, inside the block."""
        with folded_weights(self.model.transformer):
            yield

    @contextmanager
    def deployed_weights(self) -> Iterator[None]:
        """What is evaluated and exported: the average if there is one, else the trained adapter."""
        if self._ema is None:
            yield
            return
        with self._ema.applied():
            yield

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns everything that training changes, by file and name."""
        groups = {"adapter": adapter_tensors(self.parameters), "optimizer": self._optimizer_tensors()}
        return groups if self._ema is None else {**groups, "ema": self._ema.tensors()}

    def load(self, checkpoint: Checkpoint) -> None:
        """Restores what `tensors` returned.

        Raises:
            CheckpointError: the tensors are of another adapter.
        """
        try:
            _copy(dict(self.parameters), checkpoint.tensors("adapter"))
            self._load_optimizer(checkpoint.tensors("optimizer"))
            if self._ema is not None:
                self._ema.load(checkpoint.tensors("ema"))
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{checkpoint.path} holds another adapter: {error}") from error

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for name, parameter in self.parameters:
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{name}:{key}"] = value.detach().cpu()
        return tensors

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters:
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}:{key}" in tensors]
            state = {key: tensors[f"{name}:{key}"] for key in keys}
            self._optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }


def _copy(parameters: dict[str, torch.nn.Parameter], tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
