"""The methods: E-GRPO and its rivals, each a plan on one rollout engine and one objective.

A method says three things and nothing else: which steps of the schedule are stochastic, what the members of a group
share, and which transitions are trained. `plan` is what a user sees before a run, all steps that may be stochastic;
`groups` is what one update does. Free of torch.

| method | stochastic steps | a group shares | trained |
|---|---|---|---|
| egrpo | one merged step per group | everything up to that step | that step |
| g2rpo | one step per group, tails at several granularities | the same | that step |
| dance_grpo | all | the initial noise | a random part of the steps |
| flow_grpo | all | the prompt | all |
| flow_grpo_fast | a window, drawn for every update | everything up to the window | the window |
| mix_grpo | a window that slides from noise to image | the same | the window |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from egrpo import schedule
from egrpo.errors import DispersionError
from egrpo.kernels import Kernel
from egrpo.schedule import GroupPlan, MergedStep, MergePlan
from egrpo.spec_model import LIST_OR_SCALAR, SpecModel

if TYPE_CHECKING:
    import numpy as np

ActiveSteps = Annotated[
    Annotated[float, Field(gt=0, le=1), Tag("#scalar")] | Annotated[list[Annotated[int, Field(ge=0)]], Tag("#list")],
    LIST_OR_SCALAR,
]


class MethodSpec(SpecModel):
    """What every method has. `shift` None keeps the pipeline's own schedule.

    `kernel`: `flow_sde` is the paper's; `cps` (arXiv 2509.05952) keeps the share of noise on the schedule, for eta up
    to 1. `dispersion_limit` bounds latent std / marginal std after one stochastic step.
    """

    # Whether the members of a group start from one initial noise, and whether the plain ODE image is drawn beside them.
    shares_noise: ClassVar[bool] = True
    draws_anchor: ClassVar[bool] = False

    type: str
    sampling_steps: int = Field(default=16, ge=2, le=200)
    shift: float | None = Field(default=None, ge=0.01, le=100)
    kernel: Kernel = "flow_sde"
    eta: float = Field(default=0.7, gt=0, le=10)
    group_size: int = Field(default=12, ge=2, le=512)
    guidance_scale: float = Field(default=3.5, ge=0, le=100)

    @field_validator("eta")
    @classmethod
    def _eta_suits_the_kernel(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("kernel") == "cps" and value > 1:
            raise PydanticCustomError("out_of_range", "eta must be at most 1 with the kernel 'cps'", {"le": 1})
        return value

    def plan(self, sigmas: Sequence[float]) -> MergePlan:
        """Returns all steps that may be stochastic, on a schedule of sampling_steps + 1 times.

        Raises:
            DispersionError: a step is above `dispersion_limit`.
        """
        return _plan(type(self), sigmas, self.model_dump())

    @property
    def images_per_prompt(self) -> int:
        """Images that one update draws and learns from for a prompt."""
        return self.group_size

    @property
    def updates_alike(self) -> int:
        """How many updates in a row do the same, for a method whose groups follow the number of the update."""
        return 1

    def some_updates(self, plan: MergePlan) -> dict[int, tuple[GroupPlan, ...]]:
        """Returns the groups of updates that differ, of 200 places at most, by the first update that has them.

        What is drawn at random comes from a generator of its own: it shows what a run does, not which of it.
        """
        import numpy as np

        rng, found = np.random.default_rng(0), dict[tuple[GroupPlan, ...], int]()
        for place in range(200):
            step = place * self.updates_alike
            found.setdefault(self.groups(plan, rng, step), step)
        return {step: groups for groups, step in found.items()}

    def network_evaluations(self, plan: MergePlan) -> tuple[int, int]:
        """Returns the fewest and the most forward passes that an update's rollout takes for a prompt."""
        counts = [
            schedule.network_evaluations(
                plan, groups, self.group_size, shares_noise=self.shares_noise, draws_anchor=self.draws_anchor
            )
            for groups in self.extremes(plan)
        ]
        return min(counts), max(counts)

    def trained_latents(self, plan: MergePlan) -> tuple[int, int]:
        """Returns the fewest and the most latents of a prompt that one pass over a rollout runs with gradients."""
        counts = [
            schedule.trained_latents(groups, self.group_size, shares_noise=self.shares_noise)
            for groups in self.extremes(plan)
        ]
        return min(counts), max(counts)

    def extremes(self, plan: MergePlan) -> list[tuple[GroupPlan, ...]]:
        """Returns the groups of updates among which are the cheapest and the dearest. Nothing is drawn at random."""
        return [(GroupPlan(plan.steps, plan.steps),)]

    def groups(self, plan: MergePlan, rng: np.random.Generator, step: int) -> tuple[GroupPlan, ...]:
        """Returns what the groups of the update after `step` optimizer steps do."""
        raise NotImplementedError

    @classmethod
    def plan_settings(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Returns arguments of `schedule.merge_plan` beside sigmas, eta, kernel and limit: every step on its own."""
        return {"active": range(_num_stochastic(fields)), "merging": "none"}


def _num_stochastic(fields: Mapping[str, Any]) -> int:
    """Returns how many steps can be stochastic: all, but for `cps`, which has no noise on the step to t = 0."""
    return int(fields["sampling_steps"]) - (1 if fields.get("kernel") == "cps" else 0)


def _plan(method: type[MethodSpec], sigmas: Sequence[float], fields: Mapping[str, Any]) -> MergePlan:
    return schedule.merge_plan(
        sigmas,
        eta=fields["eta"],
        kernel=fields["kernel"],
        dispersion_limit=fields["dispersion_limit"],
        **method.plan_settings(fields),
    )


def _stays_below_the_limit(method: type[MethodSpec], limit: float, info: ValidationInfo) -> float:
    """Refuses a plan above the limit where the spec gives the schedule; else it is checked when that is known."""
    others = [name for name in method.model_fields if name not in ("dispersion_limit", "type")]
    if info.data.get("shift") is None or any(name not in info.data for name in others):
        return limit
    sigmas = schedule.shifted_sigmas(info.data["sampling_steps"], info.data["shift"])
    try:
        _plan(method, sigmas, {**info.data, "dispersion_limit": limit})
    except DispersionError as error:
        raise PydanticCustomError("dispersion", "{reason}", {"reason": str(error)}) from error
    return limit


class LimitedMethod(MethodSpec):
    """A method whose last field is the limit, so that it is validated when all others are known."""

    @field_validator("dispersion_limit", check_fields=False)
    @classmethod
    def _plan_stays_below_the_limit(cls, value: float, info: ValidationInfo) -> float:
        return _stays_below_the_limit(cls, value, info)


class BranchingMethod(LimitedMethod):
    """Groups that branch off the anchor, one for every active step.

    `active_steps` is a leading fraction of the schedule or a list of step indices; `active_steps_per_update` draws
    that many of them anew for every update (None: all).
    """

    draws_anchor: ClassVar[bool] = True

    active_steps: ActiveSteps = 0.5
    active_steps_per_update: int | None = Field(default=None, ge=1)

    @field_validator("active_steps")
    @classmethod
    def _active_steps_exist(cls, value: float | list[int], info: ValidationInfo) -> float | list[int]:
        steps = info.data.get("sampling_steps")
        if isinstance(value, float) or steps is None:
            return value
        last = _num_stochastic(info.data) - 1
        if not value or sorted(set(value)) != value or value[-1] > last:
            raise PydanticCustomError(
                "active_steps", f"active_steps must be different indices in rising order from 0 to {last}"
            )
        return value

    @field_validator("active_steps_per_update")
    @classmethod
    def _no_more_than_there_are(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None or any(info.data.get(name) is None for name in ("active_steps", "sampling_steps")):
            return value
        count = len(cls._active(info.data))
        if value > count:
            raise PydanticCustomError(
                "active_steps_per_update", f"there are {count} active steps; allowed: 1 to {count}"
            )
        return value

    def groups(self, plan: MergePlan, rng: np.random.Generator, step: int) -> tuple[GroupPlan, ...]:
        """One group for every active step, or for the drawn ones, in the order of the schedule."""
        count = self.active_steps_per_update
        steps = plan.steps
        if count is not None and count < len(steps):
            chosen = rng.choice(len(steps), size=count, replace=False)
            steps = tuple(steps[index] for index in sorted(chosen.tolist()))
        return self._groups_of(steps)

    def extremes(self, plan: MergePlan) -> list[tuple[GroupPlan, ...]]:
        """Those that leave the anchor first, whose tails are the longest, and those that leave it last."""
        count = self.active_steps_per_update or len(plan.steps)
        by_end = sorted(plan.steps, key=lambda step: step.end)
        return [self._groups_of(by_end[:count]), self._groups_of(by_end[-count:])]

    def _groups_of(self, steps: Sequence[MergedStep]) -> tuple[GroupPlan, ...]:
        return tuple(GroupPlan((merged,), (merged,), self.tail_strides) for merged in steps)

    @property
    def images_per_prompt(self) -> int:
        """One group for every active step of an update, each member with all of its tails."""
        active = len(self._active(self.model_dump()))
        return self.group_size * (self.active_steps_per_update or active) * len(self.tail_strides)

    @property
    def tail_strides(self) -> tuple[int, ...]:
        """Strides of a member's tails."""
        return (1,)

    @classmethod
    def plan_settings(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Single steps at the active indices."""
        return {"active": cls._active(fields), "merging": "none"}

    @staticmethod
    def _active(fields: Mapping[str, Any]) -> list[int]:
        active = schedule.active_indices(fields["active_steps"], fields["sampling_steps"])
        return [index for index in active if index < _num_stochastic(fields)]


class EGRPOMethod(BranchingMethod):
    """E-GRPO, arXiv 2601.00423: consecutive low-entropy steps are merged into one stochastic step.

    `merging`: `adaptive` merges until the entropy reaches `entropy_threshold`, `fixed` merges `fixed_length` steps,
    `none` merges nothing.
    """

    type: Literal["egrpo"] = "egrpo"
    entropy_threshold: float = Field(default=2.2, ge=0, le=100)
    merging: schedule.Merging = "adaptive"
    fixed_length: int | None = Field(default=None, ge=1, le=200, validate_default=True)
    dispersion_limit: float = Field(default=1.5, gt=1, le=1000, validate_default=True)

    @field_validator("fixed_length")
    @classmethod
    def _fixed_length_goes_with_fixed(cls, value: int | None, info: ValidationInfo) -> int | None:
        merging = info.data.get("merging")
        if merging == "fixed" and value is None:
            raise PydanticCustomError("missing", "merging 'fixed' needs fixed_length, e.g. 2, 4 or 6")
        if merging in ("adaptive", "none") and value is not None:
            raise PydanticCustomError("unexpected", f"fixed_length goes with merging 'fixed', not {merging!r}")
        return value

    @classmethod
    def plan_settings(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Merged steps at the active indices."""
        names = ("merging", "entropy_threshold", "fixed_length")
        return {**super().plan_settings(fields), **{name: fields[name] for name in names}}


class G2RPOMethod(BranchingMethod):
    """G2RPO, arXiv 2510.01982: single stochastic steps, tails at several granularities, the mean of their advantages.

    A tail of granularity k takes every k-th time of the schedule and always ends at t = 0.
    """

    type: Literal["g2rpo"]
    granularities: list[Annotated[int, Field(ge=1, le=64)]] = Field(default=[1, 2], min_length=1, max_length=8)
    dispersion_limit: float = Field(default=1.5, gt=1, le=1000, validate_default=True)

    @field_validator("granularities")
    @classmethod
    def _each_once(cls, value: list[int]) -> list[int]:
        if sorted(set(value)) != value:
            raise PydanticCustomError("granularities", "granularities must be different numbers in rising order")
        return value

    @property
    def tail_strides(self) -> tuple[int, ...]:
        """Strides of a member's tails: the granularities."""
        return tuple(self.granularities)


class DanceGRPOMethod(LimitedMethod):
    """DanceGRPO, arXiv 2505.07818: every step is stochastic, one advantage for the whole trajectory.

    A random `trained_fraction` of the steps is trained, drawn anew for every update.
    """

    type: Literal["dance_grpo"]
    trained_fraction: float = Field(default=0.6, gt=0, le=1)
    dispersion_limit: float = Field(default=1.5, gt=1, le=1000, validate_default=True)

    def groups(self, plan: MergePlan, rng: np.random.Generator, step: int) -> tuple[GroupPlan, ...]:
        """One group of whole trajectories."""
        chosen = sorted(rng.choice(len(plan.steps), size=self._num_trained(plan), replace=False).tolist())
        return (GroupPlan(plan.steps, tuple(plan.steps[index] for index in chosen)),)

    def trained_latents(self, plan: MergePlan) -> tuple[int, int]:
        """The first step, which all members share, is among the trained ones or is not."""
        count, size = self._num_trained(plan), self.group_size
        with_the_first = 1 + (count - 1) * size
        return with_the_first, with_the_first if count == len(plan.steps) else count * size

    def _num_trained(self, plan: MergePlan) -> int:
        return max(1, round(self.trained_fraction * len(plan.steps)))


class FlowGRPOMethod(LimitedMethod):
    """Flow-GRPO, arXiv 2505.05470: every step is stochastic and trained; members share nothing but the prompt.

    The paper's KL term is `training.kl_weight`.
    """

    shares_noise: ClassVar[bool] = False

    type: Literal["flow_grpo"]
    dispersion_limit: float = Field(default=1.5, gt=1, le=1000, validate_default=True)

    def groups(self, plan: MergePlan, rng: np.random.Generator, step: int) -> tuple[GroupPlan, ...]:
        """One group of whole trajectories."""
        return (GroupPlan(plan.steps, plan.steps),)


class WindowMethod(LimitedMethod):
    """Stochastic steps in a window of the schedule, which are also what is trained; the ODE before and after it."""

    window_size: int = Field(default=2, ge=1, le=200)

    @field_validator("window_size")
    @classmethod
    def _window_fits(cls, value: int, info: ValidationInfo) -> int:
        longest = value if info.data.get("sampling_steps") is None else _num_stochastic(info.data)
        if value > longest:
            raise PydanticCustomError("window_size", f"the schedule has {longest} steps that can be stochastic")
        return value

    def extremes(self, plan: MergePlan) -> list[tuple[GroupPlan, ...]]:
        """The window at every place where it can be."""
        return [self._window(plan, start) for start in self._places(plan)]

    def _places(self, plan: MergePlan) -> range:
        raise NotImplementedError

    def _window(self, plan: MergePlan, start: int) -> tuple[GroupPlan, ...]:
        steps = plan.steps[start : start + self.window_size]
        return (GroupPlan(steps, steps),)


class FlowGRPOFastMethod(WindowMethod):
    """Flow-GRPO-Fast: the window's place is drawn for every update from the first `window_range` of the schedule.

    Source: arXiv 2505.05470 and its repository; the group branches off one deterministic path.
    """

    type: Literal["flow_grpo_fast"]
    window_range: float = Field(default=0.5, gt=0, le=1)
    dispersion_limit: float = Field(default=1.5, gt=1, le=1000, validate_default=True)

    def groups(self, plan: MergePlan, rng: np.random.Generator, step: int) -> tuple[GroupPlan, ...]:
        """One group with a window at a random place."""
        return self._window(plan, int(rng.integers(len(self._places(plan)))))

    def _places(self, plan: MergePlan) -> range:
        return range(max(1, round(self.window_range * self.sampling_steps) - self.window_size + 1))


class MixGRPOMethod(WindowMethod):
    """MixGRPO, arXiv 2507.21802: the window slides from noise to image, `window_stride` steps at a time.

    It moves every `updates_per_window` optimizer steps and starts again when it has reached the end.
    """

    type: Literal["mix_grpo"]
    window_size: int = Field(default=4, ge=1, le=200)
    window_stride: int = Field(default=1, ge=1, le=200)
    updates_per_window: int = Field(default=25, ge=1, le=100_000)
    dispersion_limit: float = Field(default=1.5, gt=1, le=1000, validate_default=True)

    def groups(self, plan: MergePlan, rng: np.random.Generator, step: int) -> tuple[GroupPlan, ...]:
        """One group with the window where it is at this update."""
        places = self._places(plan)
        return self._window(plan, places[(step // self.updates_per_window) % len(places)])

    def _places(self, plan: MergePlan) -> range:
        return range(0, len(plan.steps) - self.window_size + 1, self.window_stride)

    @property
    def updates_alike(self) -> int:
        """How many updates in a row have the window at one place."""
        return self.updates_per_window


def _egrpo_unless_named(value: Any) -> Any:
    return {"type": "egrpo", **value} if isinstance(value, Mapping) else value


Method = Annotated[
    EGRPOMethod | G2RPOMethod | DanceGRPOMethod | FlowGRPOMethod | FlowGRPOFastMethod | MixGRPOMethod,
    Field(discriminator="type"),
    BeforeValidator(_egrpo_unless_named),
]
METHODS: dict[str, type[MethodSpec]] = {
    "egrpo": EGRPOMethod,
    "g2rpo": G2RPOMethod,
    "dance_grpo": DanceGRPOMethod,
    "flow_grpo": FlowGRPOMethod,
    "flow_grpo_fast": FlowGRPOFastMethod,
    "mix_grpo": MixGRPOMethod,
}
