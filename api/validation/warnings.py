"""What a spec may say and seldom means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy.orm import Session

from api.validation.schemas import WarningBody
from egrpo import catalogue
from egrpo.methods import EGRPOMethod
from egrpo.schedule import MergePlan
from jobs import quotas
from jobs.errors import QuotaExceeded
from jobs.queue_places import obstacles
from jobs.spec import JobSpec

_Told = tuple[str, str, str]


def warnings_of(
    spec: JobSpec, plan: MergePlan | None, gpu_hours: float | None, too_much_memory: str | None
) -> list[WarningBody]:
    """Returns the warnings of a spec that is right; its plan, cost and memory as far as they are known."""
    memory = [] if too_much_memory is None else [("over_memory", "/resources/gpu_type", too_much_memory)]
    return _bodies([*_of_the_data(spec), *_of_the_plan(spec, plan), *_of_the_run(spec, gpu_hours), *memory])


def warnings_of_the_service(session: Session, project_id: str, spec: JobSpec) -> list[WarningBody]:
    """Returns what would keep a job of that spec from being queued, or from ever being run, as things are now."""
    return _bodies([*_of_the_storage(session, project_id), *_of_the_queue(session, project_id, spec)])


def _bodies(found: Sequence[_Told]) -> list[WarningBody]:
    return [WarningBody(code=code, pointer=pointer, detail=detail) for code, pointer, detail in found]


def _of_the_storage(session: Session, project_id: str) -> Iterator[_Told]:
    try:
        quotas.check_storage(session, project_id)
    except QuotaExceeded as error:
        yield error.code, "", f"a job would be refused: {error.detail}"


def _of_the_queue(session: Session, project_id: str, spec: JobSpec) -> Iterator[_Told]:
    wanted = spec.resources
    for reason in obstacles(session, project_id, wanted.gpus, wanted.gpu_type):
        yield reason["code"], "/resources", f"a job would wait: {reason['message']}"


def _of_the_data(spec: JobSpec) -> Iterator[_Told]:
    entry = catalogue.MODELS.get(spec.base_model) if isinstance(spec.base_model, str) else None
    if entry is not None and entry.gated:
        yield "gated_model", "/base_model", f"the workers need access to {entry.repo}, whose licence is to be accepted"
    given, different = len(spec.prompts.inline), len(set(spec.prompts.inline))
    if different < given:
        where = "/prompts/dataset" if "/prompts" in spec.references else "/prompts/inline"
        yield "duplicate_prompts", where, f"{given - different} of {given} prompts are there already"
    train, evaluation = spec.split_prompts()
    if both := set(train) & set(evaluation):
        yield "evaluates_on_trained_prompts", "/evaluation/prompts", f"{len(both)} prompts are in both sets"


def _of_the_plan(spec: JobSpec, plan: MergePlan | None) -> Iterator[_Told]:
    method = spec.method
    if plan is None or not isinstance(method, EGRPOMethod) or method.merging != "adaptive":
        return
    if below := [str(step.start) for step in plan.steps if step.entropy < method.entropy_threshold]:
        detail = f"no merge of the active steps {', '.join(below)} has an entropy of {method.entropy_threshold:g}"
        yield "threshold_not_reached", "/method/entropy_threshold", detail


def _of_the_run(spec: JobSpec, gpu_hours: float | None) -> Iterator[_Told]:
    steps, every, limit = spec.training.steps, spec.checkpoint.every_steps, spec.limits.max_gpu_hours
    if every > steps:
        detail = f"the only checkpoint is the last, after {steps} steps: a lost worker means to start again"
        yield "no_checkpoint_on_the_way", "/checkpoint/every_steps", detail
    if limit is not None and gpu_hours is not None and gpu_hours > limit:
        yield "over_budget", "/limits/max_gpu_hours", f"{limit:g} GPU-hours allowed, about {gpu_hours:.3g} needed"
