"""The merge plan on the base model's own schedule, before a job is queued.

A method with an explicit shift is checked by the spec itself. Without one the schedule is the pipeline's scheduler's,
which is read here from the model's folder, free of torch and diffusers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from egrpo import catalogue
from egrpo.config import TrainSpec
from egrpo.errors import DispersionError
from egrpo.schedule import shifted_sigmas
from jobs.errors import FieldError

_PIXELS_PER_TOKEN = 16  # 8 of the autoencoder, 2 of the packing
# Settings that bend the schedule in a way that is not computed here: the trainer alone checks such a plan.
_BENDING = ("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas")


def problems(spec: TrainSpec) -> list[FieldError]:
    """Returns what is wrong with the plan of a spec that is otherwise right."""
    sigmas = None if spec.method.shift is not None else _own_sigmas(spec)
    if sigmas is None:
        return []
    try:
        spec.method.plan(sigmas)
    except DispersionError as error:
        detail = f"on the schedule of {spec.base_model}: {error}"
        return [FieldError("dispersion_above_limit", detail, pointer="/method/dispersion_limit")]
    return []


def _own_sigmas(spec: TrainSpec) -> list[float] | None:
    entry = catalogue.MODELS.get(spec.base_model) if isinstance(spec.base_model, str) else None
    path = entry.folder / "scheduler" / "scheduler_config.json" if entry and entry.folder else None
    if entry is None or path is None or not path.is_file():
        return None
    height, width = spec.height or entry.height, spec.width or entry.width
    num_tokens = (height // _PIXELS_PER_TOKEN) * (width // _PIXELS_PER_TOKEN)
    shift = scheduler_shift(json.loads(path.read_text()), num_tokens)
    return None if shift is None else shifted_sigmas(spec.method.sampling_steps, shift)


def scheduler_shift(config: Mapping[str, Any], num_tokens: int) -> float | None:
    """Returns the shift s of diffusers' FlowMatchEulerDiscreteScheduler, None if its schedule is not of that form.

    Static: s = shift. Dynamic, exponential: s = exp(mu), mu linear in the number of image tokens, through
    (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift). Source: diffusers 0.42, `calculate_shift` of
    the FLUX pipeline and `time_shift` of the scheduler.
    """
    if any(config.get(name) for name in _BENDING):
        return None
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", 1.0))
    if config.get("time_shift_type", "exponential") != "exponential":
        return None
    short, long = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return math.exp(low + (high - low) * (num_tokens - short) / (long - short))
