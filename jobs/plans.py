"""The merge plan on the base model's own schedule, before a job is queued.

A method with an explicit shift is checked by the spec itself. Without one the schedule is that of the pipeline's
scheduler, as far as `egrpo.own_schedule` can tell it.
"""

from __future__ import annotations

from egrpo.config import TrainSpec
from egrpo.errors import DispersionError
from egrpo.own_schedule import sigmas_of
from jobs.errors import FieldError


def problems(spec: TrainSpec) -> list[FieldError]:
    """Returns what is wrong with the plan of a spec that is otherwise right."""
    sigmas = None if spec.method.shift is not None else sigmas_of(spec)
    if sigmas is None:
        return []
    try:
        spec.method.plan(sigmas)
    except DispersionError as error:
        detail = f"on the schedule of {spec.base_model}: {error}"
        return [FieldError("dispersion_above_limit", detail, pointer="/method/dispersion_limit")]
    return []
