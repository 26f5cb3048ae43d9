"""The model card, `README.md` beside the adapter: what it is of, how it was made, what it gained, how to draw with it.

The front matter has the Hub's field names. Nothing in the card depends on the time or on how fast a run was: a resumed
run writes the same card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from egrpo.config import TrainSpec
from egrpo.export.base_model import BaseModel
from egrpo.export.code import sampling_code

CARD = "README.md"
_FILES = {
    "pytorch_lora_weights.safetensors": "diffusers",
    "peft/adapter_model.safetensors": "peft",
    "comfyui_lora.safetensors": "ComfyUI; the scale is in the matrices, load it at strength 1",
}


@dataclass(frozen=True)
class CardFacts:
    """What the card is written from.

    Args:
        spec: of the run.
        base: its base model.
        family: of the base model.
        pipeline: class of diffusers that draws with it.
        transformer: class of diffusers of what was trained.
        height: of the images, in pixels.
        width: likewise.
        max_sequence_length: text tokens.
        plan: the run's plan, as JSON types.
        report: the run's report.
        prompts: of the evaluation.
        files: in the folder of the card.
        images: pictures of the evaluation in that folder, one for each of the first prompts.
        pictures: further pictures there, by what they show.
    """

    spec: TrainSpec
    base: BaseModel
    family: str
    pipeline: str
    transformer: str
    height: int
    width: int
    max_sequence_length: int
    plan: Mapping[str, Any]
    report: Mapping[str, Any]
    prompts: Sequence[str]
    files: Sequence[str]
    images: Sequence[str]
    pictures: Mapping[str, str]


def write_card(facts: CardFacts, folder: Path) -> str:
    """Writes the card; returns its name."""
    (folder / CARD).write_text(card_text(facts), encoding="utf-8")
    return CARD


def card_text(facts: CardFacts) -> str:
    """Returns the card, front matter and all."""
    matter = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, width=10_000)
    parts = [_title(facts), _use(facts), _gains(facts), _training(facts), _limitations(facts)]
    return f"---\n{matter}---\n\n" + "\n\n".join(parts) + "\n"


def _is_lora(facts: CardFacts) -> bool:
    return facts.spec.training.lora is not None


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    found: dict[str, Any] = dict(facts.base.hub_licence)
    if facts.base.repo is not None:
        found["base_model"] = facts.base.repo
        found["base_model_relation"] = "adapter" if _is_lora(facts) else "finetune"
    found["library_name"] = "diffusers"
    found["pipeline_tag"] = "text-to-image"
    kind = ["lora"] if _is_lora(facts) else []
    found["tags"] = [
        "text-to-image",
        "diffusers",
        *kind,
        "reinforcement-learning",
        facts.spec.method.type,
        facts.family,
    ]
    found["widget"] = [
        {"text": prompt, "output": {"url": image}} for prompt, image in zip(facts.prompts, facts.images, strict=False)
    ]
    return found


def _title(facts: CardFacts) -> str:
    spec, base = facts.spec, facts.base
    what = "A LoRA adapter for" if _is_lora(facts) else "The fine-tuned transformer of"
    rewards = ", ".join(component.type for component in spec.reward.components)
    revision = f" at revision `{base.revision}`" if base.revision else ""
    digest = facts.report["model_digest"]
    known = f", sha256 of its files `{digest}`" if digest and digest != base.revision else ""
    licence = base.licence or "unknown; see where the base model comes from"
    sheet = _picture(facts, "contact sheet", "Before and after: same prompts, same seeds")
    return (
        f"# {' '.join(spec.name.split())}\n\n{what} `{base.name}`{revision}{known}, aligned by {spec.method.type} with "
        f"the reward {rewards}. There is no trigger word.\n\nLicence of the base model, which holds for this too: "
        f"{licence}.\n\n{sheet}"
    )


def _use(facts: CardFacts) -> str:
    listed = "\n".join(f"- `{name}`: {_FILES[name]}" for name in facts.files if name in _FILES)
    code = sampling_code(facts)
    return (
        f"## Use\n\n```python\n{code}\n```\n\nThese are the settings of the evaluation below; other numbers of steps, "
        f"guidance or size were not measured." + (f"\n\n{listed}" if listed else "")
    )


def _gains(facts: CardFacts) -> str:
    report = facts.report
    rows = ["| reward | before | after | difference, 95 % interval |", "|---|---|---|---|"]
    rows.append(_row("all, weighted", report, "eval_reward_before", "eval_reward_after"))
    rows += [_row(name, values, "before", "after") for name, values in report["rewards"].items()]
    strict = f"{report['strict_accuracy_before']:.1%} → {report['strict_accuracy_after']:.1%}"
    curve = _picture(facts, "reward curve", "Rewards over optimizer steps")
    return (
        f"## What it gained\n\n{report['num_images']} images of {len(report['rows'])} prompts, the same seeds before "
        "and after, drawn without added noise.\n\n" + "\n".join(rows) + f"\n\nImages that passed: {strict}.\n\n{curve}"
    )


def _row(name: str, values: Mapping[str, Any], before: str, after: str) -> str:
    low, high = values["paired_delta_ci95"]
    return (
        f"| {name} | {values[before]:.3f} | {values[after]:.3f} | "
        f"{values['paired_delta']:+.3f} ({low:+.3f} to {high:+.3f}) |"
    )


def _training(facts: CardFacts) -> str:
    training, method, plan = facts.spec.training, facts.spec.method, facts.plan
    sigmas = plan["sigmas"]
    rows = ["| stochastic step | time | entropy | dispersion |", "|---|---|---|---|"]
    for step in plan["steps"]:
        end = step["start"] + step["length"]
        times = f"{sigmas[step['start']]:.4f} → {sigmas[end]:.4f}"
        rows.append(f"| {step['start']} → {end} | {times} | {step['entropy']:.3f} | {step['dispersion']:.3f} |")
    settings: dict[str, object] = {
        "optimizer steps": training.steps,
        "learning rate": f"{training.learning_rate:g}, {training.lr_schedule}",
        "prompts per update": training.prompts_per_update,
        "group size": method.group_size,
        "seed": training.seed,
        "spec digest": facts.report["spec_digest"],
    }
    if training.lora is not None:
        settings = {"rank, alpha": f"{training.lora.rank}, {training.lora.alpha:g}", **settings}
    listed = "\n".join(f"- {name}: {value}" for name, value in settings.items())
    return f"## How it was trained\n\n{listed}\n\nThe plan, on {len(sigmas) - 1} sampling steps:\n\n" + "\n".join(rows)


def _limitations(facts: CardFacts) -> str:
    held_out = [component.type for component in facts.spec.reward.held_out]
    measured = (
        f"Rewards that were measured and never trained on: {', '.join(held_out)}; they are in the table above."
        if held_out
        else "No held-out reward was measured, so nothing here shows whether the gain is one in quality."
    )
    hacked = facts.report.get("reward_hacking")
    signs = (
        "\n\nA held-out reward fell while the trained one rose: read the curve before you use this." if hacked else ""
    )
    return (
        "## Limitations\n\nIt was trained to raise its reward and can raise it in ways that nobody wants: less "
        f"variety, exaggerated traits, artefacts that the reward does not see. {measured}{signs}\n\nIt was trained at "
        f"{facts.width}×{facts.height} pixels on {len(set(facts.spec.prompts.inline))} prompts; elsewhere it was not "
        "looked at. What the base model cannot do or should not be used for, this cannot and should not either."
    )


def _picture(facts: CardFacts, name: str, caption: str) -> str:
    return f"![{caption}]({facts.pictures[name]})"
