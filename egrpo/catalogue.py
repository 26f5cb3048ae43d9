"""What may be named in a spec: base models and rewards. Free of torch, so that the API can list it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from egrpo.errors import ConfigError

Family = Literal["flux", "flux2", "lumina2", "qwen_image", "sana", "sd3", "z_image"]

# Of a model that says nothing else.
DEFAULT_LORA_TARGETS = "attention"


class ModelEntry(BaseModel):
    """A base model that jobs may name.

    Args:
        id: what a spec names.
        family: its adapter's (`egrpo.models`).
        path: its folder inside the package, relative to `egrpo/`; else `repo` and `revision` say where it is.
        repo: its repository on the Hub.
        revision: full commit there.
        gated: whether its licence must be accepted at the Hub before anything can be loaded.
        width: of images in training unless the spec says otherwise, in pixels; sampling may go higher.
        height: likewise.
        max_sequence_length: text tokens; None takes the family's own number.
        guidance: `embedded` in the network, `classifier_free` (two passes above 1), or `none` for a distilled model.
        guidance_scale: what its makers sample with.
        eval_steps: denoising steps of a good image by the plain ODE.
        default_lora_targets: a target set of the family.
        licence: of the weights.
        description: what it is, in a sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    family: Family
    path: str | None = None
    repo: str | None = None
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    gated: bool = False
    width: int
    height: int
    max_sequence_length: int | None = None
    guidance: Literal["embedded", "classifier_free", "none"]
    guidance_scale: float
    eval_steps: int
    default_lora_targets: str = DEFAULT_LORA_TARGETS
    licence: str
    description: str

    @property
    def folder(self) -> Path | None:
        """The model's folder on this machine, for a model that is part of the package."""
        if self.path is None:
            return None
        package = find_spec("egrpo")
        assert package is not None
        assert package.submodule_search_locations is not None
        return Path(package.submodule_search_locations[0]) / self.path


class RewardEntry(BaseModel):
    """A reward that jobs may name; `needs` says what it must have to run, in words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    description: str
    range: tuple[float, float]
    needs: tuple[str, ...] = ()


MODELS: dict[str, ModelEntry] = {
    entry.id: entry
    for entry in (
        ModelEntry(
            id="tiny-flux-shapes",
            family="flux",
            path="tiny/weights",
            width=64,
            height=64,
            guidance="embedded",
            guidance_scale=3.5,
            eval_steps=20,
            default_lora_targets="attention_mlp",
            licence="Apache-2.0",
            description="A few million parameters in FLUX.1's layout that draw one or two coloured shapes at 64x64; "
            "trained in this repository, runs anywhere.",
        ),
        ModelEntry(
            id="flux-1-dev",
            family="flux",
            repo="black-forest-labs/FLUX.1-dev",
            revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
            gated=True,
            width=512,
            height=512,
            guidance="embedded",
            guidance_scale=3.5,
            eval_steps=28,
            licence="FLUX.1 [dev] Non-Commercial License",
            description="12 billion parameters, guidance-distilled. What is trained from it is non-commercial too.",
        ),
        ModelEntry(
            id="flux-1-schnell",
            family="flux",
            repo="black-forest-labs/FLUX.1-schnell",
            revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
            gated=True,
            width=512,
            height=512,
            guidance="none",
            guidance_scale=0.0,
            eval_steps=4,
            licence="Apache-2.0",
            description="FLUX.1 distilled to 1 to 4 steps; guidance has no effect.",
        ),
        ModelEntry(
            id="flux-2-klein-4b",
            family="flux2",
            repo="black-forest-labs/FLUX.2-klein-4B",
            revision="e7b7dc27f91deacad38e78976d1f2b499d76a294",
            width=512,
            height=512,
            guidance="none",
            guidance_scale=1.0,
            eval_steps=4,
            licence="Apache-2.0",
            description="4 billion parameters, distilled to 4 steps; guidance has no effect.",
        ),
        ModelEntry(
            id="flux-2-klein-base-4b",
            family="flux2",
            repo="black-forest-labs/FLUX.2-klein-base-4B",
            revision="a3b4f4849157f664bdbc776fd7453c2783562f4d",
            width=512,
            height=512,
            guidance="classifier_free",
            guidance_scale=4.0,
            eval_steps=50,
            licence="Apache-2.0",
            description="FLUX.2-klein before its distillation.",
        ),
        ModelEntry(
            id="qwen-image",
            family="qwen_image",
            repo="Qwen/Qwen-Image",
            revision="75e0b4be04f60ec59a75f475837eced720f823b6",
            width=512,
            height=512,
            guidance="classifier_free",
            guidance_scale=4.0,
            eval_steps=50,
            licence="Apache-2.0",
            description="20 billion parameters, strong at written text.",
        ),
        ModelEntry(
            id="sd3.5-medium",
            family="sd3",
            repo="stabilityai/stable-diffusion-3.5-medium",
            revision="b940f670f0eda2d07fbb75229e779da1ad11eb80",
            gated=True,
            width=512,
            height=512,
            guidance="classifier_free",
            guidance_scale=4.5,
            eval_steps=40,
            licence="Stability AI Community License",
            description="2.5 billion parameters. Commonly trained with guidance 1, that is without a second pass.",
        ),
        ModelEntry(
            id="z-image",
            family="z_image",
            repo="Tongyi-MAI/Z-Image",
            revision="04cc4abb7c5069926f75c9bfde9ef43d49423021",
            width=512,
            height=512,
            guidance="classifier_free",
            guidance_scale=4.0,
            eval_steps=50,
            licence="Apache-2.0",
            description="6 billion parameters, not distilled.",
        ),
        ModelEntry(
            id="z-image-turbo",
            family="z_image",
            repo="Tongyi-MAI/Z-Image-Turbo",
            revision="f332072aa78be7aecdf3ee76d5c247082da564a6",
            width=512,
            height=512,
            guidance="classifier_free",
            guidance_scale=0.0,
            eval_steps=9,
            licence="Apache-2.0",
            description="Z-Image distilled to 8 evaluations; made to be sampled without guidance.",
        ),
    )
}

REWARDS: dict[str, RewardEntry] = {
    entry.type: entry
    for entry in (
        RewardEntry(
            type="shapes",
            description="Verifiable from pixels: every named object is there with its colour and shape, the relation "
            "holds, nothing else is drawn. Continuous in [0, 1], passed when everything holds.",
            range=(0.0, 1.0),
        ),
        RewardEntry(
            type="compressibility",
            description="Small as a JPEG: 2 / (2 + bits per pixel). Looks at no prompt; option `quality` of the JPEG.",
            range=(0.0, 1.0),
        ),
        RewardEntry(
            type="incompressibility",
            description="Large as a JPEG: bits per pixel / (2 + bits per pixel). Looks at no prompt; option `quality`.",
            range=(0.0, 1.0),
        ),
        RewardEntry(
            type="diversity",
            description="Mean distance to the other images of the group, as averages over `grid` x `grid` cells: "
            "against a policy that draws one picture only. Looks at no prompt, so it goes with a reward that does.",
            range=(0.0, 1.0),
        ),
    )
}


def model_entry(model_id: str) -> ModelEntry:
    """Returns the catalogue's model of that id.

    Raises:
        ConfigError: there is none; the message lists the ids.
    """
    if model_id not in MODELS:
        raise ConfigError(f"base_model {model_id!r} is unknown; allowed: {sorted(MODELS)}")
    return MODELS[model_id]
