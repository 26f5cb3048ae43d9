"""The policy: base model, what is trained of it, optimiser and average, and one optimizer step over a rollout.

Which weights are used when: the rollout draws with the trained adapter folded in; the update differentiates through
the adapter's own layers; evaluation and export use the average when the spec asks for one. In mode `full` there is no
adapter, and rollout and update see the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from egrpo.batch import Batch
from egrpo.checkpoint import Checkpoint
from egrpo.config import TrainSpec
from egrpo.ema import EMA
from egrpo.errors import CheckpointError, NonFiniteError
from egrpo.full import reloaded_base, train_transformer
from egrpo.geometry import checkpoints_gradients
from egrpo.lora import add_adapter, base_weights, folded_weights
from egrpo.loss import LossStats, Objective, PolicyLoss
from egrpo.models import resolve
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.optimizer import learning_rates, load_optimizer, make_optimizer, optimizer_tensors
from egrpo.precision import LossScale, choose_precision
from egrpo.processes import Processes
from egrpo.rollout import Sampler
from egrpo.schedule import MergePlan
from egrpo.sharding import own_share, shard_transformer, whole, whole_tensors


@dataclass(frozen=True)
class UpdateStats:
    """What one optimizer step measured."""

    loss: LossStats
    grad_norm: float
    learning_rate: float
    is_skipped: bool  # gradients overflowed float16, and the parameters are as before
    network_evaluations: int


class Policy:
    """A base model with a trained adapter or, in mode `full`, with all of its transformer trained."""

    def __init__(
        self,
        model: ModelAdapter,
        spec: TrainSpec,
        plan: MergePlan,
        default_targets: str,
        check_stop: Callable[[], None],
        processes: Processes | None = None,
    ) -> None:
        training = spec.training
        self._processes = processes or Processes()
        self.model = model
        self._spec = training
        self._base = resolve(spec.base_model)[1:]
        self.precision = choose_precision(training.precision, model.device)
        if training.lora is not None:
            self.parameters = add_adapter(model, training.lora, default_targets, training.seed)
        else:
            if self.is_sharded:
                shard_transformer(model.transformer, self._processes)
            self.parameters = train_transformer(model)
        self.is_checkpointing_gradients = _set_gradient_checkpointing(model, training.gradient_checkpointing)
        self._optimizer = make_optimizer(self.parameters, training)
        self._learning_rate = learning_rates(training)
        self._ema = EMA(self.parameters, training.ema_decay) if training.ema_decay else None
        size = training.micro_batch_size or model.micro_batch_size
        self.sampler = Sampler(model, spec.method.guidance_scale, size, check_stop)
        self._scale = LossScale(self.precision, model.device)
        # Flat groups are left out of the update, so processes do not look for a stop equally often in it. Where weights
        # are sharded they must run equally often, and nothing is left out.
        looks = self._processes.count == 1 or self.is_sharded
        sampler = self.sampler if looks else replace(self.sampler, check_stop=_never)
        objective = Objective.of(training, plan)
        self._loss = PolicyLoss(model, sampler, objective, self._scale.scale, runs_all=self.is_sharded)

    @property
    def is_sharded(self) -> bool:
        """Whether every process holds only its share of the trained weights."""
        return self._spec.sharding == "fsdp2" and self._processes.count > 1

    def update(self, batch: Batch, embeds: PromptEmbeds, step: int) -> UpdateStats:
        """Makes the next optimizer step on a batch, on its next minibatch of prompts; `embeds` has its prompts.

        Raises:
            NonFiniteError: the loss or the gradient norm is not finite; the parameters are as before.
        """
        mine, others = batch.minibatch(self._spec.minibatches_per_rollout)
        remembered = 0
        if batch.updates == 0 and others:
            remembered = self._loss.remember(batch.rollout, embeds, batch.old, others)
        rate = self._learning_rate(step)
        self._optimizer.param_groups[0]["lr"] = rate
        for _, parameter in self.parameters:
            # Always there, also when no group has anything to say: the optimizer's momentum then acts alone, and acts
            # alike before and after a resume.
            parameter.grad = torch.zeros_like(parameter)
        stats = self._loss.accumulate(batch.rollout, batch.advantages, embeds, batch.old, mine)
        parameters = [parameter for _, parameter in self.parameters]
        self._average_gradients(parameters)
        self._scale.unscale(self._optimizer)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, self._spec.max_grad_norm)))
        if not math.isfinite(norm) and not self._scale.is_enabled:
            raise NonFiniteError(f"the gradient norm of optimizer step {step + 1} is {norm}")
        is_made = self._scale.step(self._optimizer)
        if self._ema is not None and is_made:
            self._ema.update()
        batch.updates += 1
        return UpdateStats(stats, norm, rate, not is_made, stats.network_evaluations + remembered)

    def _average_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Shares are of one size, so the mean over processes of their means is the mean over the batch.

        Where weights are sharded the backward has averaged already.
        """
        if self._processes.count == 1 or self.is_sharded:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self._processes.add(*gradients)
        for gradient in gradients:
            gradient /= self._processes.count

    @contextmanager
    def rollout_weights(self) -> Iterator[None]:
        """The trained weights, in their fastest form, inside the block."""
        with folded_weights(self.model.transformer):
            yield

    @contextmanager
    def base_weights(self) -> Iterator[None]:
        """The base model inside the block."""
        is_adapter = self._spec.lora is not None
        transformer = self.model.transformer
        with base_weights(transformer) if is_adapter else reloaded_base(transformer, *self._base):
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
        """Returns everything that training changes, whole, by file and name; nothing in processes that do not write.

        Where weights are sharded every process must call this.
        """
        groups: dict[str, Mapping[str, Tensor]] = {
            self._file: dict(self.parameters),
            "optimizer": optimizer_tensors(self._optimizer, self.parameters),
        }
        if scale := self._scale.tensors():
            groups["loss_scale"] = scale
        if self._ema is not None:
            groups["ema"] = self._ema.tensors()
        keep = self._processes.is_main
        return {file: whole_tensors(tensors.items(), keep=keep) for file, tensors in groups.items()}

    def load(self, checkpoint: Checkpoint) -> None:
        """Restores what `tensors` returned.

        Raises:
            CheckpointError: the tensors are of another adapter.
        """
        try:
            _copy(dict(self.parameters), checkpoint.tensors(self._file))
            load_optimizer(self._optimizer, self.parameters, checkpoint.tensors("optimizer"))
            self._scale.load(checkpoint.tensors("loss_scale"))
            if self._ema is not None:
                self._ema.load(checkpoint.tensors("ema"))
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{checkpoint.path} holds other weights: {error}") from error

    @property
    def _file(self) -> str:
        return "adapter" if self._spec.lora is not None else "transformer"


def _copy(parameters: dict[str, torch.nn.Parameter], tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(own_share(tensors[name], parameter))


def _never() -> None:
    pass


def _set_gradient_checkpointing(model: ModelAdapter, setting: Literal["auto", True, False]) -> bool:
    size = sum(parameter.numel() for parameter in model.transformer.parameters())
    is_on = checkpoints_gradients(setting, size)
    if is_on:
        model.transformer.enable_gradient_checkpointing()
    return is_on
