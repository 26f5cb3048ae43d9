"""What a job will take where no earlier one tells: from what is published of its base model and of a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

from api.validation.schemas import ComputeBody, CostBody, MemoryBody, RangeBody
from egrpo import forecast
from egrpo.errors import ConfigError
from egrpo.forecast import Work
from egrpo.gpus import GPUS, REFERENCE, gpu_of
from egrpo.published import architectures
from egrpo.schedule import MergePlan, shifted_sigmas
from jobs.spec import JobSpec

# Of a GPU's published operations a second, how many a run makes use of. 50 steps of FLUX.1-dev's stock pipeline at 512
# pixels took 8.71 s on an L40S (pruna.ai, 2025-02-17): 0.34. The trainer runs the same modules, but no run of it on a
# GPU was measured, hence the width.
UTILISATION = 0.35
UTILISATION_RANGE = (0.15, 0.6)
# Below this a GPU waits for the next kernel rather than computes.
_SMALL_MODEL_PARAMETERS = 10**8
# The paper's shift, where the model's own schedule comes with its weights.
_ASSUMED_SHIFT = 3.0


@dataclass
class Estimates:
    """Estimates of a job, and why one is missing."""

    compute: ComputeBody | None = None
    cost: CostBody | None = None
    memory: MemoryBody | None = None
    unknown: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """The GPU type that a job is taken to run on, `cpu` for none, and how it came to that."""

    gpu_type: str
    reason: str
    is_sure: bool


def target(spec: JobSpec, there: set[str]) -> Target:
    """Returns what a job will run on: what it asks for, what all the workers have that could take it, or the reference.

    Args:
        spec: The job.
        there: Types of the GPUs of the workers that could take it now.
    """
    wanted = spec.resources
    if wanted.gpus == 0:
        return Target("cpu", "no GPU is asked for", is_sure=True)
    if wanted.gpu_type is not None:
        return Target(wanted.gpu_type, f"the job asks for {wanted.gpu_type}", is_sure=True)
    if len(there) == 1:
        (only,) = there
        what = "have no GPU" if only == "cpu" else f"have {only}"
        return Target(only, f"no GPU type is asked for, and the workers that could take the job {what}", is_sure=True)
    return Target(REFERENCE, f"no GPU type is asked for: an {REFERENCE} stands for it", is_sure=False)


def of_job(spec: JobSpec, plan: MergePlan | None, on: Target) -> Estimates:
    """Returns what is known of a job without any experience of the like."""
    found = Estimates()
    if (entry := forecast.model_of(spec)) is None or entry.id not in architectures():
        found.unknown = dict.fromkeys(("compute", "cost", "memory"), "nothing is published here of the base model")
        return found
    try:
        found.memory = _memory(spec, on)
    except ConfigError as error:
        found.unknown["memory"] = str(error)
    shift_is_assumed = plan is None
    plan = plan or _assumed_plan(spec)
    work = None if plan is None else forecast.forecast_work(spec, plan)
    if work is None:
        found.unknown["compute"] = found.unknown["cost"] = "the plan is not known before the base model is loaded"
        return found
    found.compute = _compute(work, shift_is_assumed)
    cost = _cost(spec, work, on, found.compute, architectures()[entry.id].transformer_parameters)
    if isinstance(cost, str):
        found.unknown["cost"] = f"{cost}; compute has the operations"
    else:
        found.cost = cost
    return found


def _assumed_plan(spec: JobSpec) -> MergePlan | None:
    try:
        return spec.method.plan(shifted_sigmas(spec.method.sampling_steps, _ASSUMED_SHIFT))
    except ConfigError:
        return None


def _compute(work: Work, shift_is_assumed: bool) -> ComputeBody:
    assumptions = [
        "linear layers and attention of the transformer, and the decoder: rollouts and updates",
        "every prompt has as many text tokens as the model takes; every group is trained on",
    ]
    if shift_is_assumed:
        assumptions.append(f"the schedule comes with the weights: a shift of {_ASSUMED_SHIFT:g} stands for it")
    return ComputeBody(
        flops_per_pass=work.per_pass,
        flops_per_update=RangeBody(least=work.per_update[0], most=work.per_update[1]),
        flops=RangeBody(least=work.in_all[0], most=work.in_all[1]),
        assumptions=assumptions,
    )


def _cost(spec: JobSpec, work: Work, on: Target, compute: ComputeBody, parameters: int) -> CostBody | str:
    """Returns the cost, or why there is none."""
    if on.gpu_type == "cpu":
        return f"{on.reason}, and how fast a CPU is shows when a job has run"
    if parameters < _SMALL_MODEL_PARAMETERS:
        return "the model is too small to keep a GPU busy, so its work does not tell its time"
    if spec.training.precision == "float32":
        return "how fast a GPU is in float32 is not among what is published here"
    gpu = gpu_of(on.gpu_type)
    if gpu is None:
        return f"nothing is known here of the GPU type {on.gpu_type!r}; known are {', '.join(GPUS)}"
    rate = gpu.bfloat16_flops * UTILISATION
    low, high = UTILISATION_RANGE
    # All GPUs share the work, so they change how long it takes and not how many GPU-hours.
    seconds = sum(work.in_all) / 2 / rate
    return CostBody(
        basis="estimated",
        seconds_per_update=seconds / spec.training.steps / spec.resources.gpus,
        seconds=seconds / spec.resources.gpus,
        gpu_hours=seconds / 3600,
        gpu_hours_range=RangeBody(
            least=work.in_all[0] / gpu.bfloat16_flops / high / 3600,
            most=work.in_all[1] / gpu.bfloat16_flops / low / 3600,
        ),
        gpu_type=on.gpu_type,
        measured_on="",
        assumptions=[
            on.reason,
            f"{gpu.bfloat16_flops / 1e12:g} TFLOP/s in bfloat16 ({gpu.source}), of which {UTILISATION:.0%} are used; "
            f"the range is for {low:.0%} to {high:.0%}",
            "no run on a GPU was measured for this; several GPUs share the work without loss",
            *compute.assumptions,
            "rewards, text encoders, loading, evaluations, checkpoints and attempts that are lost come on top",
        ],
    )


def _memory(spec: JobSpec, on: Target) -> MemoryBody | None:
    on_cpu = on.gpu_type == "cpu"
    found = forecast.forecast_memory(spec, "cpu" if on_cpu else "gpu", max(1, spec.resources.gpus))
    if found is None:
        return None
    beside = "reward models come" if on_cpu else "CUDA itself (about 0.5 GiB) and reward models come"
    return MemoryBody(
        basis="estimated",
        peak_bytes=found.peak_bytes,
        held_bytes=found.held_bytes,
        phase=found.phase,
        gpu_type=on.gpu_type,
        measured_on="",
        assumptions=[
            on.reason,
            f"{found.precision}, up to {found.micro_batch} images at once, by the trainer's own formulas, which were "
            "measured on a CPU: docs/memory.md",
            f"for each process; {beside} on top, and the trainer checks before it begins",
        ],
    )


def too_much_memory(memory: MemoryBody | None, on: Target) -> str | None:
    """Returns that a job will hold more than its GPU has; None if it will not, or nothing is known of the GPU."""
    gpu = gpu_of(on.gpu_type) if on.is_sure else None
    if memory is None or gpu is None or memory.peak_bytes <= gpu.memory_gib * 2**30:
        return None
    peak = f"about {memory.peak_bytes / 2**30:.0f} GiB at the peak"
    phase = f", in the phase {memory.phase}" if memory.phase else ""
    return f"{peak}{phase} ({memory.basis}), and {on.gpu_type} has {gpu.memory_gib} GiB"
