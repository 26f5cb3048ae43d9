"""The schedule of a base model's own scheduler, read from its folder, free of torch and diffusers.

So that a plan can be shown, and a job refused, before anything is loaded. What is not computed here is left to the
trainer, which asks the scheduler itself: other families than FLUX.1, and settings that bend the schedule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egrpo import catalogue
from egrpo.config import TrainSpec
from egrpo.schedule import shifted_sigmas

_PIXELS_PER_TOKEN = 16  # 8 of the autoencoder, 2 of the packing
_BENDING = ("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas")


def sigmas_of(spec: TrainSpec) -> list[float] | None:
    """Returns the times of a spec's plan: by its shift, else by its model's own scheduler; None if that is not known.

    A folder of one's own must be FLUX.1's, and where the shift depends on the size of the images, the spec must say it.
    """
    steps, shift = spec.method.sampling_steps, spec.method.shift
    if shift is not None:
        return shifted_sigmas(steps, shift)
    folder, height, width = _model(spec)
    path = folder / "scheduler" / "scheduler_config.json" if folder else None
    if path is None or not path.is_file():
        return None
    num_tokens = (
        None if height is None or width is None else (height // _PIXELS_PER_TOKEN) * (width // _PIXELS_PER_TOKEN)
    )
    shift = scheduler_shift(json.loads(path.read_text()), num_tokens)
    return None if shift is None else shifted_sigmas(steps, shift)


def _model(spec: TrainSpec) -> tuple[Path | None, int | None, int | None]:
    """Returns the folder of a spec's model, if it is FLUX.1's and on this machine, and the size of its images."""
    if not isinstance(spec.base_model, str):
        return None, spec.height, spec.width
    entry = catalogue.MODELS.get(spec.base_model)
    if entry is not None:
        folder = entry.folder if entry.family == "flux" else None
        return folder, spec.height or entry.height, spec.width or entry.width
    index = Path(spec.base_model) / "model_index.json"
    is_flux = index.is_file() and json.loads(index.read_text()).get("_class_name") == "FluxPipeline"
    return Path(spec.base_model) if is_flux else None, spec.height, spec.width


def scheduler_shift(config: Mapping[str, Any], num_tokens: int | None) -> float | None:
    """Returns the shift s of diffusers' FlowMatchEulerDiscreteScheduler, None if its schedule is not of that form.

    Static: s = shift. Dynamic, exponential: s = exp(mu), mu linear in the number of image tokens, through
    (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift). Source: diffusers 0.42, `calculate_shift` of
    the FLUX pipeline and `time_shift` of the scheduler.
    """
    if any(config.get(name) for name in _BENDING):
        return None
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", 1.0))
    if config.get("time_shift_type", "exponential") != "exponential" or num_tokens is None:
        return None
    short, long = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return math.exp(low + (high - low) * (num_tokens - short) / (long - short))
