"""What a job would do and take: from its spec, what is published, and what jobs like it took."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from api.validation import estimates
from api.validation.schemas import (
    CostBody,
    CountBody,
    EvaluationsBody,
    MemoryBody,
    PlanBody,
    StepBody,
    ValidationBody,
    WorkBody,
)
from api.validation.warnings import warnings_of, warnings_of_the_service
from egrpo.methods import MethodSpec
from egrpo.own_schedule import sigmas_of
from egrpo.schedule import MergePlan
from jobs import datasets, experience, limits, queue_places, secrets
from jobs.experience import Experience
from jobs.spec import JobSpec, document_of, parse

_UNKNOWN_SCHEDULE = (
    "the schedule of the base model is known when it is loaded; method.shift gives one that is known now"
)
_WITHOUT_EXPERIENCE = {
    "cost": "no job of the project with this base model, image size, method and mode has made a step yet, and ",
    "memory": "no job of the project with this base model, image size, method and mode has said what it held, and ",
}


def validate(session: Session, project_id: str, document: Any) -> ValidationBody:
    """Returns the dry run of a job.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
    """
    spec = parse(
        document,
        lambda reference: datasets.prompts(session, project_id, reference),
        lambda secret_id: secrets.exists(session, project_id, secret_id),
    )
    limits.check_deadline(session, spec.limits)
    sigmas = sigmas_of(spec)
    plan = None if sigmas is None else spec.method.plan(sigmas)
    found = experience.of_jobs_like(session, project_id, spec)
    work = _work(spec)
    on = estimates.target(spec, queue_places.gpu_types(session, spec.resources.gpus))
    estimated = estimates.of_job(spec, plan, on)
    # What was measured is worth more than any estimate.
    cost = estimated.cost if found is None else _cost(spec, work, found)
    memory = (None if found is None else _memory(found)) or estimated.memory
    unknown = {} if plan else dict.fromkeys(("plan", "network_evaluations"), _UNKNOWN_SCHEDULE)
    told = {"compute": estimated.compute, "cost": cost, "memory": memory}
    unknown |= {
        name: f"{_WITHOUT_EXPERIENCE.get(name, '')}{reason}"
        for name, reason in estimated.unknown.items()
        if told[name] is None
    }
    return ValidationBody(
        spec=document_of(spec),
        spec_digest=spec.train_spec().digest(),
        work=work,
        plan=None if plan is None else _plan(spec.method, plan),
        network_evaluations=None if plan is None else _evaluations(spec.method, plan, work),
        compute=estimated.compute,
        cost=cost,
        memory=memory,
        unknown=unknown,
        warnings=[
            *warnings_of(spec, plan, None if cost is None else cost.gpu_hours, estimates.too_much_memory(memory, on)),
            *warnings_of_the_service(session, project_id, spec),
        ],
    )


def _work(spec: JobSpec) -> WorkBody:
    training = spec.training
    train, evaluation = spec.split_prompts()
    assert training.images_per_update is not None, "the spec fills it in"
    return WorkBody(
        updates=training.steps,
        rollouts=-(-training.steps // (training.updates_per_rollout * training.minibatches_per_rollout)),
        prompts_per_rollout=training.prompts_per_update * training.minibatches_per_rollout,
        images_per_update=training.images_per_update,
        train_prompts=len(train),
        evaluation_prompts=len(evaluation),
    )


def _plan(method: MethodSpec, plan: MergePlan) -> PlanBody:
    steps = [
        StepBody(
            start=step.start,
            end=step.end,
            length=step.length,
            merged=step.length > 1,
            std=plan.gaussian(step).std,
            entropy=step.entropy,
            dispersion=step.dispersion,
        )
        for step in plan.steps
    ]
    return PlanBody(method=method.type, kernel=plan.kernel, eta=plan.eta, sigmas=list(plan.sigmas), steps=steps)


def _evaluations(method: MethodSpec, plan: MergePlan, work: WorkBody) -> EvaluationsBody:
    fewest, most = method.network_evaluations(plan)
    per_rollout, in_all = work.prompts_per_rollout, work.prompts_per_rollout * work.rollouts
    return EvaluationsBody(
        per_prompt=CountBody(fewest=fewest, most=most),
        per_rollout=CountBody(fewest=fewest * per_rollout, most=most * per_rollout),
        in_all=CountBody(fewest=fewest * in_all, most=most * in_all),
    )


def _cost(spec: JobSpec, work: WorkBody, found: Experience) -> CostBody:
    per_update = found.seconds_per_step * work.images_per_update / found.images_per_update
    seconds = per_update * work.updates
    return CostBody(
        basis="measured",
        seconds_per_update=per_update,
        seconds=seconds,
        gpu_hours=seconds * spec.resources.gpus / 3600,
        gpu_hours_range=None,
        gpu_type=None,
        measured_on=found.job_id,
        assumptions=[
            f"the mean of {found.num_steps} steps of {found.images_per_update} images, "
            f"{found.seconds_per_step:.3g} s each, on the worker that ran them",
            "time grows with the images of an update; other settings of the method and rewards are as they were there",
            "loading, evaluations, checkpoints and attempts that are lost come on top",
        ],
    )


def _memory(found: Experience) -> MemoryBody | None:
    if found.peak_memory_bytes is None:
        return None
    assumption = "micro-batch, precision and trained parameters as they were there; the trainer checks before it begins"
    return MemoryBody(
        basis="measured",
        peak_bytes=found.peak_memory_bytes,
        held_bytes=None,
        phase=None,
        gpu_type=None,
        measured_on=found.job_id,
        assumptions=[assumption],
    )
