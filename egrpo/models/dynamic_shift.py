"""The times of a flow-matching scheduler whose shift depends on the number of latent tokens.

FLUX.1 and the families after it share this: their pipelines hand the scheduler uniform times and a shift parameter mu
that is linear in the number of tokens. A scheduler with a fixed shift takes no notice of mu.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers.pipelines.flux.pipeline_flux import calculate_shift


def scheduler_sigmas(
    scheduler: Any, num_steps: int, num_tokens: int, uniform: Sequence[float] | None = None
) -> list[float]:
    """Returns the times t_0 ... t_T = 0 of the pipeline's own scheduler, T = num_steps.

    `uniform` are the times 1 ... 1/T that the pipeline hands it, rounded as there; None where it makes them itself.
    """
    config = scheduler.config
    mu = calculate_shift(
        num_tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    if uniform is None:
        scheduler.set_timesteps(num_steps, mu=mu)
    else:
        scheduler.set_timesteps(sigmas=uniform, mu=mu)
    return [float(sigma) for sigma in scheduler.sigmas]
