"""The shape of a dry run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class StepBody(BaseModel):
    """One stochastic step of the plan, from time `sigmas[start]` to `sigmas[end]`."""

    start: int
    end: int
    length: int
    merged: bool = Field(description="whether it takes the place of several steps of the schedule")
    std: float
    entropy: float
    dispersion: float


class PlanBody(BaseModel):
    """The schedule, and which of its steps are stochastic."""

    method: str
    kernel: str
    eta: float
    sigmas: list[float]
    steps: list[StepBody] = Field(description="the active steps")


class CountBody(BaseModel):
    """How many; a method that draws its steps anew for every update takes more at one time than at another."""

    fewest: int
    most: int


class EvaluationsBody(BaseModel):
    """Latents that pass the network in rollouts; two passes of classifier-free guidance count as one."""

    per_prompt: CountBody
    per_rollout: CountBody
    in_all: CountBody


class WorkBody(BaseModel):
    """How much the job does."""

    updates: int = Field(description="optimizer steps")
    rollouts: int
    prompts_per_rollout: int
    images_per_update: int
    train_prompts: int
    evaluation_prompts: int


class RangeBody(BaseModel):
    """From the least to the most that it may be."""

    least: float
    most: float


Basis = Literal["measured", "estimated"]
_BASIS = "measured: by what an earlier job took; estimated: from the base model's published architecture"
_MEASURED_ON = "the job that was measured; empty for an estimate"


class ComputeBody(BaseModel):
    """Floating-point operations of the job, a multiplication and an addition being two."""

    flops_per_pass: float = Field(description="one image once through the network, without gradients")
    flops_per_update: RangeBody = Field(description="an optimizer step with its share of the rollout, over all GPUs")
    flops: RangeBody = Field(description="in all")
    assumptions: list[str]


class CostBody(BaseModel):
    """What the job will take: by what an earlier one took, else by its operations and a GPU's published speed."""

    basis: Basis = Field(description=_BASIS)
    seconds_per_update: float
    seconds: float
    gpu_hours: float
    gpu_hours_range: RangeBody | None = Field(description="what the assumptions leave open; null for a measured cost")
    gpu_type: str | None = Field(description="the type that the estimate is for; null for a measured cost")
    measured_on: str = Field(description=_MEASURED_ON)
    assumptions: list[str]


class MemoryBody(BaseModel):
    """What the trainer will hold at its peak: by what an earlier job held, else by the trainer's formulas."""

    basis: Basis = Field(description=_BASIS)
    peak_bytes: int = Field(description="of one process: on a GPU what is allocated there, on a CPU what is resident")
    held_bytes: int | None = Field(description="of it, what is there all the time; null for a measured peak")
    phase: str | None = Field(
        description="what decides the peak: encoding, rollout, decoding or update; null for a measured peak"
    )
    gpu_type: str | None = Field(description="the type that the estimate is for, or `cpu`; null for a measured peak")
    measured_on: str = Field(description=_MEASURED_ON)
    assumptions: list[str]


class WarningBody(BaseModel):
    """Something that is allowed and seldom meant."""

    code: str
    detail: str
    pointer: str


class ValidationBody(BaseModel):
    """A job that was not queued: its spec with every default, its plan, and what it will take."""

    spec: dict[str, Any]
    spec_digest: str
    work: WorkBody
    plan: PlanBody | None
    network_evaluations: EvaluationsBody | None
    compute: ComputeBody | None
    cost: CostBody | None
    memory: MemoryBody | None
    unknown: dict[str, str] = Field(
        description="why a member above is null", examples=[{"cost": "how fast a CPU is shows when a job has run"}]
    )
    warnings: list[WarningBody]
