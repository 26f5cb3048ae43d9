"""What the tests need to know of every model family, one module a family: `tests/unit/egrpo/test_model_families.py`.

A module of this package holds `FAMILIES`, a tuple of `Family`; all of them are found by `all_families`. To add a
family, add a module that builds a tiny random pipeline of its real diffusers classes: about 100 000 parameters, images
of 32 pixels, nothing downloaded. Imports of torch stay inside the functions, since other tests list the families too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

PROMPTS = ("a red circle", "a blue square left of a yellow triangle")


def load_stock(folder: Path) -> Any:
    """Returns the stock pipeline of a folder, silent; components that its index leaves out are None."""
    from diffusers import DiffusionPipeline

    index = json.loads((folder / "model_index.json").read_text())
    absent = {name: None for name, part in index.items() if part == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@dataclass(frozen=True)
class Family:
    """A tiny random pipeline and how its stock `__call__` is used.

    Args:
        name: of the case; one adapter may have several (FLUX.1-dev and FLUX.1-schnell).
        family: the adapter's own `family`.
        pipeline: name of the pipeline class that the folder's model_index.json must name.
        build: writes the pipeline folder and returns it; the same weights every time.
        guidances: values of the guidance to test, those for which one velocity takes two passes last.
        guidance_matters: whether two of them give different images.
        dynamic_shift: whether the schedule depends on the resolution.
        guidance_argument: what the stock `__call__` names the guidance.
        arguments: further arguments of the stock `__call__`, the same for every image.
        arguments_of_steps: further ones that depend on the number of steps.
        size: height and width in pixels at which images are compared.
        other_size: another one, not square.
        tolerance: largest difference of a pixel in [0, 1] from the stock pipeline's.
        load_stock: loads the stock pipeline, for families whose plain ODE needs another scheduler.
    """

    name: str
    family: str
    pipeline: str
    build: Callable[[Path], Path]
    guidances: tuple[float, ...]
    guidance_matters: bool = True
    dynamic_shift: bool = True
    guidance_argument: str = "guidance_scale"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    arguments_of_steps: Callable[[int], Mapping[str, Any]] = lambda steps: {}
    size: tuple[int, int] = (32, 32)
    other_size: tuple[int, int] = (48, 32)
    tolerance: float = 1e-5
    load_stock: Callable[[Path], Any] = load_stock

    def __str__(self) -> str:
        return self.name

    def stock_image(
        self, pipeline: Any, prompt: str, seed: int, steps: int, guidance: float, size: tuple[int, int] | None = None
    ) -> Any:
        """Returns what the stock pipeline draws, float32 [1, 3, H, W] in [0, 1]."""
        import torch

        height, width = size or self.size
        return pipeline(
            prompt=prompt,
            height=height,
            width=width,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **{self.guidance_argument: guidance},
            **self.arguments,
            **self.arguments_of_steps(steps),
        ).images


def all_families() -> list[Family]:
    """Returns the families of every module of this package, in the order of their names."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return sorted((family for module in modules for family in getattr(module, "FAMILIES", ())), key=str)
