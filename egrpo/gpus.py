"""What GPUs are published to do: the ground for hours where nothing was measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MEMORY = re.compile(r"-(\d{2,3})gb\b")


@dataclass(frozen=True)
class GPU:
    """A GPU by its makers' word.

    Args:
        bfloat16_flops: operations a second of its tensor cores in bfloat16, dense, sums in float32.
        memory_gib: of the card; of the smallest where there are several.
        source: where both are published.
    """

    bfloat16_flops: float
    memory_gib: int
    source: str


# By the type that jobs ask for and workers report, or the first words of it. What is printed with sparsity is halved.
GPUS: dict[str, GPU] = {
    "a10": GPU(125e12, 24, "NVIDIA A10 datasheet"),
    "a100": GPU(312e12, 40, "NVIDIA A100 datasheet"),
    "a40": GPU(149.7e12, 48, "NVIDIA A40 datasheet"),
    "b200": GPU(2250e12, 180, "NVIDIA DGX B200 datasheet, an eighth of it"),
    "h100": GPU(989.4e12, 80, "NVIDIA H100 datasheet, SXM"),
    "h100-nvl": GPU(835.5e12, 94, "NVIDIA H100 datasheet, NVL"),
    "h100-pcie": GPU(756e12, 80, "NVIDIA H100 PCIe product brief"),
    "h200": GPU(989.4e12, 141, "NVIDIA H200 datasheet, SXM"),
    "l4": GPU(121e12, 24, "NVIDIA L4 datasheet"),
    "l40s": GPU(362.05e12, 48, "NVIDIA L40S datasheet"),
    "rtx-3090": GPU(71e12, 24, "NVIDIA GA102 white paper"),
    "rtx-4090": GPU(165.2e12, 24, "NVIDIA Ada white paper"),
    "rtx-5090": GPU(209.5e12, 32, "NVIDIA RTX Blackwell white paper"),
    "rtx-a6000": GPU(154.8e12, 48, "NVIDIA GA102 white paper"),
}
# For estimates where neither the job nor the workers that are there name a type.
REFERENCE = "h100"


def gpu_of(gpu_type: str) -> GPU | None:
    """Returns the GPU of a type such as `h100` or `h100-80gb-hbm3`; None if nothing is known of it, as of a laptop's.

    The longest name that the type begins with counts, and where the type says how much memory it has, that much.
    """
    text = re.sub(r"^(nvidia|geforce)-", "", gpu_type)
    text = f"rtx-{text}" if re.match(r"\d{4}\b", text) else text
    known = max((name for name in GPUS if text == name or text.startswith(f"{name}-")), key=len, default=None)
    if known is None or "laptop" in text or "max-q" in text:
        return None
    found, memory = GPUS[known], _MEMORY.search(text)
    return found if memory is None else GPU(found.bfloat16_flops, int(memory[1]), found.source)
