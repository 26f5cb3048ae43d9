"""One run's book: what is loaded, which step it is at, what is evaluated, committed, resumed and left behind.

`egrpo.train` is the method; everything about files, events and restarts is here.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from egrpo import checkpoint, hacking, report
from egrpo.advantage import Moments
from egrpo.batch import Batch, joined, share_of
from egrpo.catalogue import DEFAULT_LORA_TARGETS
from egrpo.config import TrainSpec
from egrpo.device_memory import check_memory, peak_bytes
from egrpo.errors import ConfigError, MemoryLimitError, SelfCheckError, StopRequested
from egrpo.evaluate import (
    Evaluation,
    EvaluationSet,
    draw_samples,
    evaluate,
    save_png,
)
from egrpo.events import METRICS_FILE, EventWriter, Silence, file_entries
from egrpo.expected_memory import expected_memory
from egrpo.export import export_adapter
from egrpo.export.base_model import describe
from egrpo.export.card import CardFacts, write_card
from egrpo.full import export_transformer
from egrpo.geometry import BatchGeometry, batch_geometry
from egrpo.models import load_model, resolve
from egrpo.models.adapter import ModelAdapter, PromptEmbeds
from egrpo.models.embeds_cache import EmbedsCache
from egrpo.optimizer import check_optimizer
from egrpo.policy import Policy
from egrpo.processes import AgreedStop, Processes
from egrpo.rewards import FloatArray
from egrpo.schedule import MergePlan
from egrpo.scoring import WeightedReward, load_rewards
from egrpo.selfcheck import check_first_rollout
from egrpo.sharding import own_class, own_size
from egrpo.state import CurvePoint, Draws, History, RecordedEvaluation, history_from_json, history_to_json
from egrpo.trackers import Trackers, check_trackers

CHECKPOINTS, ADAPTER, SAMPLES = "checkpoints", "adapter", "samples"
# Pictures of the evaluation in the model card.
_CARD_IMAGES = 4


class Run:
    """The state of one run and its folder."""

    def __init__(
        self,
        spec: TrainSpec,
        output: Path,
        events: EventWriter,
        model: ModelAdapter,
        policy: Policy,
        plan: MergePlan,
        rewards: Sequence[WeightedReward],
        processes: Processes,
        check_stop: AgreedStop,
    ) -> None:
        self.spec, self.output, self.events = spec, output, events
        self.model, self.policy, self.rewards = model, policy, tuple(rewards)
        self.optimised = tuple(weighted for weighted in rewards if not weighted.is_held_out)
        self.train_prompts, eval_prompts = spec.split_prompts()
        self.plan = plan
        self.processes, self._check_stop = processes, check_stop
        self._trackers = Trackers(spec if processes.is_main else None, output)
        self.draws = Draws(spec.training.seed, len(self.train_prompts), processes)
        self.history = History()
        self.step = 0
        self.pending: Batch | None = None
        embeds = model.encode_prompts([*self.train_prompts, *eval_prompts], EmbedsCache.default())
        model.drop_text_encoders()
        self._train_embeds = embeds[torch.arange(len(self.train_prompts))]
        eval_rows = torch.arange(len(self.train_prompts), len(embeds))
        self.evaluation_set = EvaluationSet.of(spec, model, eval_prompts, embeds[eval_rows].to(model.device))
        self._values: dict[str, float] = {}
        self._committed_step: int | None = None
        self._bar: Any = None
        self._shown: dict[str, str] = {}
        self._started = time.monotonic()
        self._first_step = 0
        self._earlier_seconds = 0.0
        self._snapshot = self._state()

    @classmethod
    def prepare(
        cls,
        spec: TrainSpec,
        output: Path,
        resume: bool,
        events: EventWriter,
        check_stop: Callable[[], None],
        rewards: Sequence[WeightedReward] | None,
    ) -> Run:
        """Loads everything and, when asked to, the newest whole checkpoint.

        Raises:
            ConfigError: the folder holds another run, or a run and `resume` was not asked for.
            ModelError: the base model cannot be loaded.
        """
        began = time.monotonic()
        processes = Processes.of_launcher()
        processes.check_divides(spec.training.prompts_per_update)
        events = events if processes.is_main else Silence()
        found = _checkpoint_to_resume(spec, output, resume, events)
        # Nobody writes before everybody has looked.
        processes.wait()
        events.phase("loading_model")
        output.mkdir(parents=True, exist_ok=True)
        if processes.is_main:
            (output / "spec.json").write_text(spec.model_dump_json(indent=1) + "\n")
        loaded = list(rewards) if rewards is not None else load_rewards(spec)
        device = processes.device
        check_optimizer(spec.training, device)
        check_trackers(spec.trackers)
        model = load_model(spec, device)
        entry = resolve(spec.base_model)[0]
        plan = spec.method.plan(model.sigmas(spec.method.sampling_steps, spec.method.shift))
        targets = entry.default_lora_targets if entry else DEFAULT_LORA_TARGETS
        agreed_stop = AgreedStop(check_stop, processes)
        policy = Policy(model, spec, plan, targets, agreed_stop, processes)
        events.phase("warming_up")
        _check_memory(spec, model, policy, processes, events)
        run = cls(spec, output, events, model, policy, plan, loaded, processes, agreed_stop)
        run._earlier_seconds = time.monotonic() - began
        if processes.is_main:
            (output / "plan.json").write_text(json.dumps(run.plan.to_dict(), indent=1) + "\n")
        run._restore(found)
        run._say_what_runs()
        return run

    def embeds_of(self, prompt_P: Sequence[int]) -> PromptEmbeds:
        """Returns the embeddings of some training prompts."""
        return self._train_embeds[torch.tensor(prompt_P)].to(self.model.device)

    def check_first_rollout(self, batch: Batch, scores: Sequence[FloatArray]) -> None:
        """Looks at the first rollout of a run that has not learned yet (`egrpo.selfcheck`); `scores` by reward.

        Raises:
            SelfCheckError: the run could not learn, and the spec does not say to go on.
        """
        if self.step > 0:
            return
        embeds = self.embeds_of(batch.prompt_P)
        try:
            self.events.log(
                check_first_rollout(self.policy, batch.rollout, embeds, batch.advantages, self.optimised, scores)
            )
        except SelfCheckError as error:
            _stop_or_warn(self.spec, self.events, error)

    def batch_moments(self, own: Moments) -> Moments:
        """Returns the moments of numbers of all processes from those of this process."""
        return Moments(*self.processes.add_numbers([own.count, own.total, own.squares]))

    def measure(self, values: dict[str, float]) -> None:
        """Collects measurements of the step under way."""
        self._values |= values

    def finish_step(self, seconds: float) -> None:
        """Counts an optimizer step and publishes what was measured."""
        self.step += 1
        self.history.training_seconds += seconds
        self._snapshot = self._state()
        self._values["peak_memory_bytes"] = float(peak_bytes(self.model.device))
        merged = self.processes.merged_metrics({**self._values, "seconds": seconds})
        self._publish(merged)
        rate = (self.step - self._first_step) / (time.monotonic() - self._started)
        total = self.spec.training.steps
        self.events.progress(self.step, total, rate, (total - self.step) / rate)
        if self._bar is not None:
            self._bar.update(1)
            self._show(reward=f"{merged.get('reward_mean', float('nan')):.3f}")
        self._values = {}

    def evaluate_if_due(self) -> None:
        """Evaluates at step 0, every `every_steps` and at the end, unless this step was evaluated already."""
        due = self.step % self.spec.evaluation.every_steps == 0 or self.step == self.spec.training.steps
        if not due or self.history.reward_at(self.step) is not None:
            return
        self.events.phase("evaluating")
        with self.policy.deployed_weights(), self.policy.rollout_weights():
            evaluation = evaluate(self.model, self.policy.sampler, self.rewards, self.evaluation_set, self.processes)
        self._record(evaluation)
        self._snapshot = self._state()
        if self.step < self.spec.training.steps:
            self.events.phase("training")

    def commit_if_due(self) -> None:
        """Commits a checkpoint every `every_steps` and at the end."""
        if self.step % self.spec.checkpoint.every_steps == 0 or self.step == self.spec.training.steps:
            self.commit()

    def commit(self) -> None:
        """Commits the last finished optimizer step, unless it is on disk already."""
        if self._committed_step == self.step:
            return
        self.events.phase("checkpointing")
        trained = self.policy.tensors()
        if not self.processes.is_main:
            self._committed_step = self.step
            return
        state, tensors = self._snapshot
        root = self.output / CHECKPOINTS
        committed = checkpoint.commit(
            root,
            self.step,
            tensors={**trained, **tensors},
            state={**state, "history": history_to_json(self._history_now())},
            spec_digest=self.spec.digest(),
            eval_reward=self.history.reward_at(self.step),
        )
        self._committed_step = self.step
        path = str(committed.path.relative_to(self.output))
        files = [*committed.files, *file_entries(committed.path, [checkpoint.MANIFEST])]
        self.events.checkpoint(self.step, "state", path, files, committed.eval_reward)
        checkpoint.prune(root, keep_last=self.spec.checkpoint.keep_last, keep_best=self.spec.checkpoint.keep_best)
        if self.step < self.spec.training.steps:
            self.events.phase("training")

    @contextmanager
    def committing_on_stop(self) -> Iterator[None]:
        """Commits the last finished optimizer step when the block is stopped, and lets the stop go on."""
        try:
            yield
        except StopRequested:
            self.commit()
            raise
        finally:
            self._trackers.finish()

    @contextmanager
    def progress_bar(self, shown: bool) -> Iterator[None]:
        """Shows step, reward and remaining time inside the block."""
        total = self.spec.training.steps
        shown = shown and self.processes.is_main
        with tqdm(total=total, initial=self.step, unit="step", dynamic_ncols=True) if shown else nullcontext() as bar:
            self._bar = bar
            yield
            self._bar = None

    def finish(self) -> Path:
        """Exports the adapter and writes the report; returns the report's path."""
        self.commit()
        self.events.phase("exporting")
        if self.policy.is_sharded:
            # Nobody can export or draw without the others.
            names, before, after = self._export(), self._sample_images(0), self._sample_images(self.step)
            if self.processes.is_main:
                self._write_results(names, before, after)
        elif self.processes.is_main:
            with self._check_stop.alone():
                self._write_results(self._export(), self._sample_images(0), self._sample_images(self.step))
        self.processes.wait()
        return self.output / report.REPORT

    def _export(self) -> list[str]:
        folder = self.output / ADAPTER
        with self.policy.deployed_weights():
            if self.spec.training.lora is None:
                return export_transformer(self.model, folder, writes=self.processes.is_main)
            return export_adapter(self.model, folder, self.spec.export.formats, describe(self.spec.base_model))

    def _write_results(self, names: list[str], before: Tensor, after: Tensor) -> None:
        folder = self.output / ADAPTER
        prompts = self.evaluation_set.prompts
        document = report.build_report(self.spec, prompts, self._history_now(), self.model.digest)
        report.write_report(document, self.output)
        captions = [prompts[p] for p in range(len(self.evaluation_set.sample_rows))]
        report.draw_contact_sheet(before, after, captions, min(4, len(captions)), self.output / report.CONTACT_SHEET)
        report.draw_reward_curve(self.history.curve, self._training_curves(), self.output / report.REWARD_CURVE)
        names += self._write_card(document, after, names)
        files = file_entries(folder, names)
        self.events.checkpoint(self.step, "adapter", ADAPTER, files, self.history.reward_at(self.step))
        for name in (report.REPORT, report.CONTACT_SHEET, report.REWARD_CURVE):
            self.events.artifact(name)
        self.events.phase("done")

    def _write_card(self, document: dict[str, Any], images_SCHW: Tensor, files: Sequence[str]) -> list[str]:
        """Writes the model card and its pictures beside the adapter; returns the names of these files."""
        folder, model = self.output / ADAPTER, self.model
        pictures = {"contact sheet": report.CONTACT_SHEET, "reward curve": report.REWARD_CURVE}
        for name in pictures.values():
            shutil.copyfile(self.output / name, folder / name)
        images = [f"images/{index:03d}.png" for index in range(min(_CARD_IMAGES, len(images_SCHW)))]
        for name, image in zip(images, images_SCHW, strict=False):
            save_png(image, folder / name)
        facts = CardFacts(
            spec=self.spec,
            base=describe(self.spec.base_model),
            family=model.family,
            pipeline=model.pipeline_class.__name__,
            transformer=own_class(model.transformer).__name__,
            height=model.height,
            width=model.width,
            max_sequence_length=model.max_sequence_length,
            plan=self.plan.to_dict(),
            report=document,
            prompts=self.evaluation_set.prompts,
            files=files,
            images=images,
            pictures=pictures,
        )
        return [write_card(facts, folder), *pictures.values(), *images]

    def _record(self, evaluation: Evaluation) -> None:
        means = evaluation.reward_means
        self.history.curve.append(CurvePoint(self.step, evaluation.reward, evaluation.strict_accuracy, means))
        images = evaluation.by_prompt(self.evaluation_set.images_per_prompt)
        self.history.latest = images
        self.history.recent = [*self.history.recent, RecordedEvaluation(self.step, images)][-1 - hacking.WINDOW :]
        if self.step == 0:
            self.history.before = images
        self._publish(evaluation.metrics())
        self._show(eval=f"{evaluation.reward:.3f}", strict=f"{evaluation.strict_accuracy:.2f}")
        for index, row in enumerate(self.evaluation_set.sample_rows):
            path = self._sample_path(self.step, index)
            self._publish_sample(evaluation, path, row, evaluation.images_SCHW[index], "evaluation")
        for extreme in evaluation.extremes:
            path = self._sample_path(self.step, extreme.rank, extreme.kind)
            self._publish_sample(evaluation, path, extreme.row, extreme.image_CHW, extreme.kind)
        self.history.hacking, told = hacking.extended(self.history.hacking, self.history.recent)
        for message in told:
            self.events.log(message, level="warning")

    def _publish(self, values: Mapping[str, float]) -> None:
        self.events.metric(self.step, values)
        self._trackers.log(self.step, values)

    def _publish_sample(self, evaluation: Evaluation, path: Path, row: int, image_CHW: Tensor, kind: str) -> None:
        if not self.processes.is_main:
            return
        save_png(image_CHW, path)
        prompt_index = self.evaluation_set.prompt_of_row[row]
        self.events.sample(
            self.step,
            str(path.relative_to(self.output)),
            self.evaluation_set.prompts[prompt_index],
            prompt_index,
            self.evaluation_set.seeds_R[row],
            evaluation.scores.of_row(row),
            bool(evaluation.scores.passed_R[row]),
            kind,
        )

    def _sample_path(self, step: int, index: int, kind: str = "evaluation") -> Path:
        name = f"{index:03d}.png" if kind == "evaluation" else f"{kind}-{index:03d}.png"
        return self.output / SAMPLES / f"step-{step:06d}" / name

    def _sample_images(self, step: int) -> Tensor:
        """The kept images of the first or last step; drawn again where a resumed run does not have the files."""
        paths = [self._sample_path(step, index) for index in range(len(self.evaluation_set.sample_rows))]
        are_there = all(path.exists() for path in paths)
        if self.policy.is_sharded:
            # Drawing takes all processes, so one of them decides for all.
            are_there = self.processes.each(are_there)[0]
        if are_there:
            pixels = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(np.float32) / 255
            return torch.from_numpy(pixels).permute(0, 3, 1, 2)
        with self.policy.base_weights() if step == 0 else self.policy.deployed_weights():
            return draw_samples(self.model, self.policy.sampler, self.evaluation_set)

    def _training_curves(self) -> dict[str, list[tuple[int, float]]]:
        path = self.output / METRICS_FILE
        curves: dict[str, list[tuple[int, float]]] = {}
        for row in map(json.loads, path.read_text().splitlines() if path.exists() else ()):
            for name, value in row["values"].items():
                curves.setdefault(name, []).append((row["step"], value))
        return curves

    def _show(self, **fields: str) -> None:
        if self._bar is not None:
            self._shown |= fields
            self._bar.set_postfix(self._shown)

    def _history_now(self) -> History:
        self.history.seconds = self._earlier_seconds + time.monotonic() - self._started
        return self.history

    def _state(self) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
        """The state at the end of a finished optimizer step; a stop in the middle of the next one commits it."""
        draws, tensors = self.draws.save()
        state = {"step": self.step, "draws": draws, "pending": None}
        groups = {"rng": tensors}
        if self.pending is not None:
            state["pending"], groups["rollout"] = joined(self.processes.each(self.pending.pack()))
        return state, groups

    def _restore(self, found: checkpoint.Checkpoint | None) -> None:
        if found is None:
            return
        state = found.state()
        self.policy.load(found)
        self.draws.load(state["draws"], found.tensors("rng"))
        self.history = history_from_json(state["history"])
        self.step = self._first_step = self._committed_step = found.step
        self._earlier_seconds += self.history.seconds
        if state["pending"] is not None:
            own = share_of(state["pending"], found.tensors("rollout"), self.processes.index, self.processes.count)
            self.pending = Batch.unpack(*own, self.plan, self.model.device)
        self.events.forget_metrics_after(self.step)
        self._snapshot = self._state()
        self.events.log(f"resumed at step {self.step} from {found.path.name}")

    def _say_what_runs(self) -> None:
        training, plan = self.spec.training, self.plan
        steps = ", ".join(f"{step.start}->{step.end}" for step in plan.steps)
        overlap = set(self.train_prompts) & set(self.evaluation_set.prompts)
        self.events.log(
            f"{len(self.train_prompts)} training prompts, {len(self.evaluation_set.prompts)} evaluation prompts, "
            f"micro-batch {self.policy.sampler.micro_batch_size} on {self.model.device}, "
            f"{sum(p.numel() for _, p in self.policy.parameters)} trained parameters ({training.mode}), "
            f"{'with' if self.policy.is_checkpointing_gradients else 'without'} gradient checkpointing, "
            f"merged steps {steps}"
        )
        if training.sharding == "fsdp2":
            own = sum(own_size(parameter) for _, parameter in self.policy.parameters)
            count = f"{self.processes.count} processes, of which" if self.policy.is_sharded else "one process, and"
            self.events.log(f"sharding fsdp2: {count} this one holds {own} trained parameters")
        precision = self.policy.precision
        self.events.log(f"the network computes in {precision.name}: {precision.reason}")
        evaluated = self.evaluation_set
        enough = hacking.has_enough_units(len(evaluated.prompts), evaluated.images_per_prompt)
        if any(weighted.is_held_out for weighted in self.rewards) and not enough:
            self.events.log(
                f"no warning of reward hacking: it takes {hacking.MIN_UNITS} evaluation prompts to tell it from chance"
            )
        self.events.log(str(_geometry(self.spec, self.policy, self.processes)))
        if overlap:
            self.events.log(f"{len(overlap)} evaluation prompts are also trained on", level="warning")


def _geometry(spec: TrainSpec, policy: Policy, processes: Processes) -> BatchGeometry:
    return batch_geometry(spec, policy.sampler.micro_batch_size, processes.count)


def _check_memory(
    spec: TrainSpec, model: ModelAdapter, policy: Policy, processes: Processes, events: EventWriter
) -> None:
    """Says what this process of the run will need, before anything is encoded or trained.

    Raises:
        MemoryLimitError: it is more than there is, and the spec does not say to go on.
    """
    geometry = _geometry(spec, policy, processes)
    prompts = [prompt for part in spec.split_prompts() for prompt in part]
    try:
        events.log(check_memory(expected_memory(spec, model, policy, geometry, len(prompts)), model.device))
    except MemoryLimitError as error:
        _stop_or_warn(spec, events, error)


def _stop_or_warn(spec: TrainSpec, events: EventWriter, error: ConfigError) -> None:
    if spec.training.startup_checks == "stop":
        raise error
    events.log(str(error), level="warning")


def _checkpoint_to_resume(
    spec: TrainSpec, output: Path, resume: bool, events: EventWriter
) -> checkpoint.Checkpoint | None:
    root = output / CHECKPOINTS
    if not resume:
        if any(root.glob("step-*")) or (output / METRICS_FILE).exists():
            raise ConfigError(f"{output} already holds a run; pass --resume to go on with it, or choose another folder")
        return None
    found = checkpoint.newest(root, lambda message: events.log(message, level="warning"))
    if found is not None and found.spec_digest != spec.digest():
        raise ConfigError(f"{found.path} was written by another spec; resume with the spec of that run")
    return found
