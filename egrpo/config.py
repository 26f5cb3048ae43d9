"""The training spec: one frozen pydantic tree. Free of torch, so that the service can check a job before it runs.

What a user writes in YAML or posts as JSON is `TrainSpec`. Everything but `base_model`, `prompts` and `reward` has a
default that works. `parse_spec` turns all errors of a document into one `ConfigError`; `egrpo.spec_issues` gives them
one by one, with JSON pointers.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from egrpo import catalogue
from egrpo.errors import ConfigError
from egrpo.export.comfyui_keys import refused_format
from egrpo.methods import EGRPOMethod, Method, MethodSpec
from egrpo.spec_issues import spec_issues
from egrpo.spec_model import LIST_OR_SCALAR, OBJECT_OR_SCALAR, SpecModel
from egrpo.tiny.captions import parse_caption

Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
ModuleName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Surrogate = Literal["ppo_clip", "grpo_guard", "flow_dppo"]


class HubModel(SpecModel):
    """A base model by repository and full commit, so that a run can be repeated."""

    repo: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$", max_length=200)]
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class PromptSource(SpecModel):
    """Prompts, written out."""

    inline: list[Prompt] = Field(min_length=1, max_length=10_000)


class ShapesRewardSpec(SpecModel):
    """The verifiable shapes reward."""

    type: Literal["shapes"]
    weight: float = Field(default=1.0, gt=0, le=1000)


class JpegRewardSpec(SpecModel):
    """Pictures that are small, or large, as a JPEG of that quality."""

    type: Literal["compressibility", "incompressibility"]
    weight: float = Field(default=1.0, gt=0, le=1000)
    quality: int = Field(default=95, ge=1, le=100)


class DiversityRewardSpec(SpecModel):
    """Pictures that differ from the others of their group, compared as averages over grid x grid cells."""

    type: Literal["diversity"]
    weight: float = Field(default=1.0, gt=0, le=1000)
    grid: int = Field(default=16, ge=1, le=256)


RewardComponent = Annotated[ShapesRewardSpec | JpegRewardSpec | DiversityRewardSpec, Field(discriminator="type")]


class RewardSpec(SpecModel):
    """What is optimised, and what is measured beside it and never optimised (`held_out`).

    `combine`: `gdpo` normalises every component within its group before they are summed by weight, so that no
    component counts more for having larger scores; `weighted_sum` sums the scores and normalises the sum.
    """

    components: list[RewardComponent] = Field(min_length=1, max_length=16)
    combine: Literal["gdpo", "weighted_sum"] = "gdpo"
    held_out: list[RewardComponent] = Field(default_factory=list, max_length=16)

    @field_validator("components", "held_out")
    @classmethod
    def _each_type_once(cls, value: list[RewardComponent]) -> list[RewardComponent]:
        # Metrics, samples and reports know a reward by its type.
        types = [component.type for component in value]
        if twice := next((type_ for type_ in types if types.count(type_) > 1), None):
            raise PydanticCustomError("reward_twice", f"reward type {twice!r} is named twice; allowed: once")
        return value


class LoRASpec(SpecModel):
    """The trained adapter. `targets`: a named set of `egrpo.lora`, a list of module names, or None: the model's own."""

    rank: int = Field(default=32, ge=1, le=1024)
    alpha: float = Field(default=64, gt=0, le=4096)
    targets: (
        Annotated[
            Annotated[Literal["attention", "attention_mlp", "all"], Tag("#scalar")]
            | Annotated[list[ModuleName], Field(min_length=1), Tag("#list")],
            LIST_OR_SCALAR,
        ]
        | None
    ) = None


# The end of diffusers' polynomial schedule.
_POLYNOMIAL_END = 1e-7
# factor:until_step, ..., factor
_STEP_RULES = r"^(\d+(\.\d+)?:\d+,)*\d+(\.\d+)?$"


def _default_learning_rate(given: dict[str, Any]) -> float:
    return 2e-6 if given.get("mode") == "full" else 2e-4


def _default_lora(given: dict[str, Any]) -> LoRASpec | None:
    return None if given.get("mode") == "full" else LoRASpec()


class TrainingSpec(SpecModel):
    """Optimiser, its schedule, and the numbers of the objective. `steps` counts optimizer steps.

    `mode`: `lora` trains an adapter, `full` the transformer itself. The default learning rate goes with it: 2e-4 for an
    adapter, the paper's 2e-6 for a full fine-tune. `lr_schedule` has the names of diffusers' schedules;
    `lr_step_rules` goes with `piecewise_constant` ("1:100,0.1:200,0.01": times 1 for 100 steps, 0.1 up to step 200,
    0.01 after), `lr_cycles` with `cosine_with_restarts`, `lr_power` with `polynomial`.

    `sharding`: with `fsdp2` and several processes each holds its share of the weights, gradients and moments of a full
    fine-tune (`egrpo.sharding`); it never changes the result.

    `advantage_std_floor`: a group's deviations are divided by max(std, floor), so that groups which hardly differ do
    not have their noise amplified. An optimizer step learns from `images_per_update` images; given in place of
    `prompts_per_update`, it must be a multiple of the images that the method draws for a prompt. A rollout has
    `minibatches_per_rollout` times as many prompts, and `updates_per_rollout` passes are made over it, each of that
    many optimizer steps. `micro_batch_size` bounds how many images pass the network at once (None: by the model's
    size); it never changes the result. `gradient_checkpointing` computes activations twice instead of keeping them
    (`auto`: for models above 1e9 parameters).

    `startup_checks` says what happens when the memory estimate is above what the device has, or the first rollout shows
    that the run could not learn (`egrpo.selfcheck`).

    `surrogate` is what bounds an update (`egrpo.objective`): `ppo_clip` clips the ratio at `clip_range`, `grpo_guard`
    clips a ratio that is normalised over timesteps (with a smaller range, 2e-6 say), `flow_dppo` stops what leads
    beyond `divergence_limit`, the KL divergence per latent dimension (None: 1e-5). On the first update after a rollout
    all ratios are 1, and of the three only `grpo_guard` differs, by its weights of the timesteps. `timestep_rescale`
    `flash` gives all timesteps gradients of one size.
    """

    steps: int = Field(default=300, ge=1, le=100_000)
    prompts_per_update: int = Field(default=8, ge=1, le=1024)
    images_per_update: int | None = Field(default=None, ge=2, le=1_000_000)
    mode: Literal["lora", "full"] = "lora"
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    sharding: Literal["none", "fsdp2"] = "none"
    learning_rate: float = Field(default_factory=_default_learning_rate, gt=0, le=1)
    warmup_steps: int = Field(default=0, ge=0)
    lr_step_rules: Annotated[str, StringConstraints(pattern=_STEP_RULES, max_length=1000)] | None = None
    lr_cycles: int = Field(default=1, ge=1, le=1000)
    lr_power: float = Field(default=1.0, gt=0, le=100)
    lr_schedule: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "piecewise_constant",
    ] = Field(default="constant", validate_default=True)
    lora: LoRASpec | None = Field(default_factory=_default_lora)
    seed: int = Field(default=42, ge=0, lt=2**32)
    surrogate: Surrogate = "ppo_clip"
    clip_range: float = Field(default=1e-4, gt=0, lt=1)
    divergence_limit: float | None = Field(default=None, gt=0, le=1)
    timestep_rescale: Literal["none", "flash"] = "none"
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    advantage_clip: float = Field(default=5.0, gt=0)
    advantage_std_floor: float = Field(default=0.0, ge=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    kl_weight: float = Field(default=0.0, ge=0)
    updates_per_rollout: int = Field(default=1, ge=1, le=100)
    minibatches_per_rollout: int = Field(default=1, ge=1, le=100)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    micro_batch_size: int | None = Field(default=None, ge=1, le=65_536)
    gradient_checkpointing: Literal["auto", True, False] = "auto"
    startup_checks: Literal["stop", "warn"] = "stop"

    @field_validator("lr_schedule")
    @classmethod
    def _schedule_has_what_it_needs(cls, value: str, info: ValidationInfo) -> str:
        given = info.data
        if (value == "piecewise_constant") != (given.get("lr_step_rules") is not None):
            raise PydanticCustomError(
                "lr_step_rules", "lr_schedule 'piecewise_constant' and lr_step_rules need each other"
            )
        if value == "piecewise_constant" and given.get("warmup_steps"):
            raise PydanticCustomError(
                "warmup_steps", "lr_schedule 'piecewise_constant' has no warm-up; write it into lr_step_rules"
            )
        if value == "polynomial" and given.get("learning_rate", 1) <= _POLYNOMIAL_END:
            raise PydanticCustomError(
                "learning_rate", f"lr_schedule 'polynomial' ends at {_POLYNOMIAL_END}; learning_rate must be above"
            )
        if value == "polynomial" and given.get("warmup_steps", 0) >= given.get("steps", math.inf):
            raise PydanticCustomError("warmup_steps", "lr_schedule 'polynomial' needs warmup_steps below steps")
        return value

    @field_validator("sharding")
    @classmethod
    def _only_a_full_fine_tune_is_sharded(cls, value: str, info: ValidationInfo) -> str:
        if value == "fsdp2" and info.data.get("mode") == "lora":
            raise PydanticCustomError("unexpected", "sharding 'fsdp2' goes with mode 'full'; allowed: 'none'")
        if value == "fsdp2" and info.data.get("optimizer") == "adamw_8bit":
            raise PydanticCustomError(
                "unexpected", "sharding 'fsdp2' goes with optimizer 'adamw', not 'adamw_8bit'; allowed: 'none'"
            )
        return value

    @field_validator("lora")
    @classmethod
    def _lora_goes_with_lora(cls, value: LoRASpec | None, info: ValidationInfo) -> LoRASpec | None:
        mode = info.data.get("mode")
        if mode == "full" and value is not None:
            raise PydanticCustomError("unexpected", "mode 'full' trains the transformer itself; lora goes with 'lora'")
        if mode == "lora" and value is None:
            raise PydanticCustomError("missing", "mode 'lora' needs the section lora; leave it out for its defaults")
        return value

    @field_validator("kl_weight")
    @classmethod
    def _kl_needs_the_base(cls, value: float, info: ValidationInfo) -> float:
        if value > 0 and info.data.get("mode") == "full":
            raise PydanticCustomError(
                "unexpected",
                "the KL term compares with the base model, which mode 'full' overwrites; allowed: 0, or mode 'lora'",
            )
        return value

    @field_validator("divergence_limit")
    @classmethod
    def _divergence_limit_goes_with_flow_dppo(cls, value: float | None, info: ValidationInfo) -> float | None:
        surrogate = info.data.get("surrogate")
        if value is not None and surrogate in ("ppo_clip", "grpo_guard"):
            raise PydanticCustomError(
                "unexpected", f"divergence_limit goes with surrogate 'flow_dppo', not {surrogate!r}"
            )
        return value

    @field_validator("timestep_rescale")
    @classmethod
    def _grpo_guard_rescales_itself(cls, value: str, info: ValidationInfo) -> str:
        if value == "flash" and info.data.get("surrogate") == "grpo_guard":
            raise PydanticCustomError(
                "unexpected",
                "timestep_rescale 'flash' goes with 'ppo_clip' or 'flow_dppo': 'grpo_guard' rescales itself",
            )
        return value


class EvaluationSpec(SpecModel):
    """Fixed prompts and seeds, drawn by the plain ODE.

    `prompts` as a number sets that many of the spec's prompts aside: they are not trained on. It never takes more than
    half of them; a single prompt is both trained on and evaluated. `sampling_steps` None: the method's.
    """

    every_steps: int = Field(default=25, ge=1)
    prompts: Annotated[
        Annotated[int, Field(ge=1, le=10_000), Tag("#scalar")] | Annotated[PromptSource, Tag("#object")],
        OBJECT_OR_SCALAR,
    ] = 16
    images_per_prompt: int = Field(default=4, ge=1, le=256)
    seed: int = Field(default=1234, ge=0, lt=2**32)
    sampling_steps: int | None = Field(default=None, ge=1, le=200)


class CheckpointSpec(SpecModel):
    """How often the state is committed, and which of the committed states stay."""

    every_steps: int = Field(default=25, ge=1)
    keep_last: int = Field(default=3, ge=1)
    keep_best: int = Field(default=2, ge=0)


AdapterFormat = Literal["diffusers", "peft", "comfyui"]


def _diffusers_only() -> list[AdapterFormat]:
    return ["diffusers"]


class ExportSpec(SpecModel):
    """Formats of the exported adapter; docs/adapters.md says what loads which."""

    formats: list[AdapterFormat] = Field(default_factory=_diffusers_only, min_length=1)

    @field_validator("formats")
    @classmethod
    def _each_format_once(cls, value: list[AdapterFormat]) -> list[AdapterFormat]:
        if len(set(value)) < len(value):
            raise PydanticCustomError("duplicate_format", "every format may be named once")
        return value


class TrainSpec(SpecModel):
    """One training run, whole."""

    # A service that must not read its host's folders sets this to False in its own subclass.
    local_models_allowed: ClassVar[bool] = True

    name: str = Field(default="run", min_length=1, max_length=200)
    base_model: Annotated[Annotated[str, Tag("#scalar")] | Annotated[HubModel, Tag("#object")], OBJECT_OR_SCALAR]
    reward: RewardSpec  # before the prompts, which are checked against it
    prompts: PromptSource
    method: Method = Field(default_factory=EGRPOMethod)
    training: TrainingSpec = Field(default_factory=TrainingSpec, validate_default=True)
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    export: ExportSpec = Field(default_factory=ExportSpec)
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default_factory=list, max_length=3)
    height: int | None = Field(default=None, ge=16, le=4096, multiple_of=16)
    width: int | None = Field(default=None, ge=16, le=4096, multiple_of=16)

    @field_validator("base_model")
    @classmethod
    def _model_is_known(cls, value: str | HubModel) -> str | HubModel:
        if isinstance(value, HubModel) or value in catalogue.MODELS:
            return value
        if cls.local_models_allowed and Path(value).is_dir():
            return value
        allowed = [*sorted(catalogue.MODELS)] + (
            ["a folder of a diffusers pipeline"] if cls.local_models_allowed else []
        )
        raise PydanticCustomError("unknown_model", "base_model is unknown", {"allowed": allowed})

    @field_validator("prompts")
    @classmethod
    def _prompts_suit_the_rewards(cls, value: PromptSource, info: ValidationInfo) -> PromptSource:
        _check_prompts(value, info.data.get("reward"))
        return value

    @field_validator("training")
    @classmethod
    def _images_per_update_are_whole_prompts(cls, value: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        method: MethodSpec | None = info.data.get("method")
        return value if method is None else _with_prompts_per_update(value, method.images_per_prompt)

    @field_validator("evaluation")
    @classmethod
    def _evaluation_prompts_suit_the_rewards(cls, value: EvaluationSpec, info: ValidationInfo) -> EvaluationSpec:
        if isinstance(value.prompts, PromptSource):
            _check_prompts(value.prompts, info.data.get("reward"), "prompts")
        _check_images_per_prompt(value, info.data.get("reward"))
        return value

    @field_validator("export")
    @classmethod
    def _formats_exist_for_the_family(cls, value: ExportSpec, info: ValidationInfo) -> ExportSpec:
        # The family of a folder or a repository is known when the run starts, which checks it before it loads anything.
        base_model = info.data.get("base_model")
        entry = catalogue.MODELS.get(base_model) if isinstance(base_model, str) else None
        training = info.data.get("training")
        refused = refused_format(value.formats, entry.family) if entry is not None else None
        if training is not None and training.mode == "full" and value.formats != ["diffusers"]:
            index = next(index for index, name in enumerate(value.formats) if name != "diffusers")
            refused = index, f"{value.formats[index]!r} is a format of adapters; mode 'full' leaves 'diffusers'"
        if refused is not None:
            index, reason = refused
            kind = PydanticCustomError("unsupported_format", "{reason}", {"reason": reason})
            problem = InitErrorDetails(type=kind, loc=("formats", index), input=value.formats[index])
            raise ValidationError.from_exception_data("export", [problem])
        return value

    def digest(self) -> str:
        """Returns the sha256 of everything in the spec that decides the result (all but name and trackers)."""
        document = self.model_dump(mode="json", exclude={"name", "trackers"})
        return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def split_prompts(self) -> tuple[list[str], list[str]]:
        """Returns the prompts to train on and the prompts to evaluate on; duplicates count once."""
        prompts = list(dict.fromkeys(self.prompts.inline))
        if isinstance(self.evaluation.prompts, PromptSource):
            return prompts, list(dict.fromkeys(self.evaluation.prompts.inline))
        if len(prompts) == 1:
            return prompts, prompts
        count = min(self.evaluation.prompts, len(prompts) // 2)
        held_out = set(random.Random(self.evaluation.seed).sample(range(len(prompts)), count))
        train = [prompt for index, prompt in enumerate(prompts) if index not in held_out]
        return train, [prompts[index] for index in sorted(held_out)]


def _with_prompts_per_update(training: TrainingSpec, images_per_prompt: int) -> TrainingSpec:
    """Returns the settings with both numbers filled in, or refuses numbers that do not go together."""
    images = training.images_per_update
    if images is None:
        return training.model_copy(update={"images_per_update": training.prompts_per_update * images_per_prompt})
    prompts, rest = divmod(images, images_per_prompt)
    stated = training.prompts_per_update if "prompts_per_update" in training.model_fields_set else prompts
    if rest or not 1 <= prompts <= 1024 or stated != prompts:
        reason = f"the method draws {images_per_prompt} images for a prompt"
        allowed = (
            f"a multiple of {images_per_prompt} up to {1024 * images_per_prompt}"
            if stated == prompts
            else f"{stated * images_per_prompt}, or leave out prompts_per_update"
        )
        kind = PydanticCustomError("images_per_update", reason, {"allowed": allowed})
        problem = InitErrorDetails(type=kind, loc=("images_per_update",), input=images)
        raise ValidationError.from_exception_data("training", [problem])
    return training.model_copy(update={"prompts_per_update": prompts})


def _check_prompts(prompts: PromptSource, reward: RewardSpec | None, *parents: str) -> None:
    """Raises the prompts that a reward of the spec cannot score, each at its own place below `parents`."""
    if reward is None or not any(isinstance(part, ShapesRewardSpec) for part in (*reward.components, *reward.held_out)):
        return
    found: list[InitErrorDetails] = []
    for index, prompt in enumerate(prompts.inline):
        try:
            parse_caption(prompt)
        except ValueError as error:
            kind = PydanticCustomError("prompt_not_scorable", "reward shapes: {reason}", {"reason": str(error)})
            found.append({"type": kind, "loc": (*parents, "inline", index), "input": prompt})
    if found:
        raise ValidationError.from_exception_data("prompts", found)


def _check_images_per_prompt(evaluation: EvaluationSpec, reward: RewardSpec | None) -> None:
    """Raises if a group-wise reward would see groups of one image."""
    parts = () if reward is None else (*reward.components, *reward.held_out)
    if evaluation.images_per_prompt == 1 and any(isinstance(part, DiversityRewardSpec) for part in parts):
        kind = PydanticCustomError("group_of_one", "reward diversity compares the images of a prompt; allowed: >= 2")
        raise ValidationError.from_exception_data(
            "evaluation", [{"type": kind, "loc": ("images_per_prompt",), "input": 1}]
        )


def parse_spec(document: Any) -> TrainSpec:
    """Returns the spec of a parsed YAML or JSON document.

    Raises:
        ConfigError: with every problem of the document, one a line: pointer, reason, value, what is allowed.
    """
    if not isinstance(document, Mapping):
        raise ConfigError(f"the spec must be a mapping, got {type(document).__name__}")
    return parse(TrainSpec, document)


Parsed = TypeVar("Parsed", bound=BaseModel)


def parse(kind: type[Parsed], document: Mapping[str, Any]) -> Parsed:
    """Returns a part of the spec, or raises one `ConfigError` with every problem in it, one a line."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        issues = spec_issues(error)
        raise ConfigError("\n".join(str(issue) for issue in issues)) from error
