"""The lines of Python in a model card: load the stock pipeline, put the trained weights in, draw one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egrpo.export.card import CardFacts

FOLDER = "path/to/this/folder"
# What the stock pipelines call guidance; Qwen-Image guides only where it has a negative prompt too.
_GUIDANCE = {"qwen_image": 'negative_prompt=" ", true_cfg_scale'}


_DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"


def sampling_code(facts: CardFacts) -> str:
    """Returns code that draws the evaluation's first image, with the first format that Python loads."""
    spec = facts.spec
    source, of_base = _source(facts)
    if spec.training.lora is None:
        imports = [f"from diffusers import {', '.join(sorted([facts.transformer, facts.pipeline]))}"]
        load = [
            f'transformer = {facts.transformer}.from_pretrained("{FOLDER}")',
            f"pipeline = {facts.pipeline}.from_pretrained({source}, transformer=transformer)",
        ]
    else:
        imports = [f"from diffusers import {facts.pipeline}"]
        load = [f"pipeline = {facts.pipeline}.from_pretrained({source})"]
        if _DIFFUSERS_FILE in facts.files:
            load.append(f'pipeline.load_lora_weights("{FOLDER}", weight_name="{_DIFFUSERS_FILE}")')
        elif "peft/adapter_model.safetensors" in facts.files:
            imports.append("from peft import PeftModel")
            load.append(f'pipeline.transformer = PeftModel.from_pretrained(pipeline.transformer, "{FOLDER}/peft")')
        else:
            load.append("# The file here is for ComfyUI; this draws what the base model draws with the same settings.")
    lines = ["import torch", *imports, *of_base, "", *load]
    if spec.method.shift is not None:
        lines.append(
            "pipeline.scheduler = pipeline.scheduler.from_config("
            f"pipeline.scheduler.config, shift={spec.method.shift}, use_dynamic_shifting=False)"
        )
    return "\n".join([*lines, *_call(facts)])


def _source(facts: CardFacts) -> tuple[str, list[str]]:
    base = facts.base
    if base.repo is not None:
        return f'"{base.repo}", revision="{base.revision}"', []
    if base.is_bundled:
        return f'model_entry("{base.name}").folder', ["from egrpo.catalogue import model_entry"]
    return repr(base.name), []


def _call(facts: CardFacts) -> list[str]:
    spec = facts.spec
    guidance = _GUIDANCE.get(facts.family, "guidance_scale")
    return [
        "image = pipeline(",
        f"    {facts.prompts[0]!r},",
        f"    num_inference_steps={spec.evaluation.sampling_steps or spec.method.sampling_steps},",
        f"    {guidance}={spec.method.guidance_scale},",
        f"    height={facts.height},",
        f"    width={facts.width},",
        f"    max_sequence_length={facts.max_sequence_length},",
        f"    generator=torch.Generator().manual_seed({spec.evaluation.seed}),",
        ").images[0]",
    ]
