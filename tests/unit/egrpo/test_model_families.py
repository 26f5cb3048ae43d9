"""Every model family against the stock pipeline of diffusers, on tiny random weights; see `tests/families`."""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from egrpo_runs import Redness, short_spec
from families import PROMPTS, Family, all_families
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from egrpo.config import LoRASpec
from egrpo.export import export_adapter
from egrpo.lora import add_adapter, folded_weights, target_modules
from egrpo.models import FAMILIES, family_of
from egrpo.models.adapter import ModelAdapter
from egrpo.rollout import Sampler
from egrpo.scoring import WeightedReward
from egrpo.sde import sde_step
from egrpo.train import train

STEPS = 3
SEEDS = (7, 8)
# Of two images that must not be the same: this many times the tolerance of two that must.
DIFFERENT = 20
CASES = all_families()
GUIDED = [(family, guidance) for family in CASES for guidance in family.guidances]


class Built:
    """A family's pipeline folder, its stock pipeline and our adapter, each loaded when it is first asked for."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family = family
        self.folder = family.build(folder)
        self._stock_images: dict[tuple[str, int, float], Tensor] = {}

    @cached_property
    def model(self) -> ModelAdapter:
        return self.load()

    @cached_property
    def stock(self) -> Any:
        return self.family.load_stock(self.folder)

    @cached_property
    def embeds(self) -> Any:
        return self.model.encode_prompts(PROMPTS)

    def load(self, size: tuple[int, int] | None = None, **arguments: Any) -> ModelAdapter:
        height, width = size or self.family.size
        return family_of(str(self.folder), None).load(str(self.folder), height=height, width=width, **arguments)

    def stock_image(self, prompt: str, seed: int, guidance: float) -> Tensor:
        key = (prompt, seed, guidance)
        if key not in self._stock_images:
            self._stock_images[key] = self.family.stock_image(self.stock, prompt, seed, STEPS, guidance)
        return self._stock_images[key]

    def our_images(self, rows: list[int], seeds: list[int], guidance: float) -> Tensor:
        return draw(self.model, self.embeds, rows, seeds, guidance)


def draw(model: ModelAdapter, embeds: Any, rows: list[int], seeds: list[int], guidance: float) -> Tensor:
    sampler = Sampler(model, guidance, 100)
    latents = sampler.ode(model.initial_latents(seeds), model.sigmas(STEPS), embeds, torch.tensor(rows))
    return model.decode(latents)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.fixture(scope="session")
def all_built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    return {}


@pytest.fixture
def built(family: Family, all_built: dict[str, Built], tmp_path_factory: pytest.TempPathFactory) -> Built:
    if family.name not in all_built:
        all_built[family.name] = Built(family, tmp_path_factory.mktemp("families") / family.name)
    return all_built[family.name]


def test_every_family_that_is_served_is_tested() -> None:
    assert {family.pipeline for family in CASES} == set(FAMILIES)


@pytest.mark.parametrize("family", CASES, ids=str)
def test_the_pipeline_class_finds_the_family(family: Family, built: Built) -> None:
    assert json.loads((built.folder / "model_index.json").read_text())["_class_name"] == family.pipeline
    assert built.model.family == family.family
    assert type(built.model).pipeline_class.__name__ == family.pipeline
    assert not any(parameter.requires_grad for parameter in built.model.transformer.parameters())


@pytest.mark.parametrize(("family", "guidance"), GUIDED, ids=str)
def test_our_ode_gives_the_stock_pipelines_image(family: Family, guidance: float, built: Built) -> None:
    """A batch of two prompts and seeds against the stock pipeline, called for one after the other."""
    ours = built.our_images([0, 1], list(SEEDS), guidance)
    for row in range(2):
        assert distance(ours[row], built.stock_image(PROMPTS[row], SEEDS[row], guidance)[0]) < family.tolerance


@pytest.mark.parametrize("family", CASES, ids=str)
def test_seed_prompt_and_guidance_each_make_another_image(family: Family, built: Built) -> None:
    """What the comparison with the stock pipeline could not see if random weights drew one image for everything."""
    guidance = family.guidances[-1]
    images = built.our_images([0, 0, 1], [SEEDS[0], SEEDS[1], SEEDS[0]], guidance)
    assert distance(images[0], images[1]) > DIFFERENT * family.tolerance
    assert distance(images[0], images[2]) > DIFFERENT * family.tolerance
    other = built.our_images([0], [SEEDS[0]], family.guidances[0])
    if family.guidance_matters:
        assert distance(images[:1], other) > DIFFERENT * family.tolerance
    else:
        assert distance(images[:1], other) < family.tolerance


@pytest.mark.parametrize(("family", "guidance"), GUIDED, ids=str)
def test_a_batch_of_prompts_is_each_prompt_alone(family: Family, guidance: float, built: Built) -> None:
    """Prompts of different lengths: padding of one must not reach into the other."""
    together = built.our_images([0, 1], list(SEEDS), guidance)
    alone = [
        draw(built.model, built.model.encode_prompts([PROMPTS[row]]), [0], [SEEDS[row]], guidance) for row in (0, 1)
    ]
    assert distance(together, torch.cat(alone)) < family.tolerance


@pytest.mark.parametrize("family", CASES, ids=str)
def test_the_schedule_is_the_pipelines_own_unless_a_shift_is_given(family: Family, built: Built) -> None:
    guidance = family.guidances[0]
    family.stock_image(built.stock, PROMPTS[0], 0, 5, guidance)
    own = built.model.sigmas(5)
    np.testing.assert_allclose(own, built.stock.scheduler.sigmas.tolist(), atol=1e-6)
    assert own == sorted(own, reverse=True)
    assert own[0] <= 1
    assert own[-1] == 0
    assert built.model.sigmas(16, 3.0)[1] == pytest.approx(0.9783, abs=5e-5)


@pytest.mark.parametrize("family", CASES, ids=str)
def test_another_resolution(family: Family, built: Built) -> None:
    """Not square, so that height and width cannot be taken for each other; with its own dynamic shift."""
    guidance = family.guidances[-1]
    model = built.load(family.other_size)
    ours = draw(model, built.embeds, [0], [3], guidance)
    assert ours.shape == (1, 3, *family.other_size)
    stock = family.stock_image(built.stock, PROMPTS[0], 3, STEPS, guidance, family.other_size)
    assert distance(ours, stock) < family.tolerance
    differs = float(np.abs(np.subtract(model.sigmas(STEPS), built.model.sigmas(STEPS))).max()) > 1e-6
    assert differs == family.dynamic_shift


@pytest.mark.parametrize("family", CASES, ids=str)
def test_decoded_images_are_float32_in_0_1(family: Family, built: Built) -> None:
    images = built.model.decode(20 * built.model.initial_latents([1, 2, 3]))
    assert images.dtype == torch.float32
    assert images.shape == (3, 3, *family.size)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert float(images.std()) > 0


@pytest.mark.parametrize(("family", "guidance"), GUIDED, ids=str)
def test_passes_per_velocity_counts_what_passes_the_network(family: Family, guidance: float, built: Built) -> None:
    rows = 0

    def count(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal rows
        hidden = named["hidden_states"] if "hidden_states" in named else arguments[0]
        rows += len(hidden)

    x_BNC = built.model.initial_latents([1, 2, 3])
    handle = built.model.transformer.register_forward_pre_hook(count, with_kwargs=True)
    try:
        with torch.no_grad():
            velocity = built.model.velocity(x_BNC, 0.7, built.embeds[torch.tensor([0, 1, 0])], guidance)
    finally:
        handle.remove()
    assert velocity.dtype == torch.float32
    assert velocity.shape == x_BNC.shape
    assert rows == 3 * built.model.passes_per_velocity(guidance)


@pytest.mark.parametrize("family", CASES, ids=str)
def test_bfloat16_keeps_float32_between_steps(family: Family, built: Built) -> None:
    model = built.load(dtype=torch.bfloat16)
    x_BNC = model.initial_latents([1, 2])
    assert x_BNC.dtype == torch.float32
    with torch.no_grad():
        velocity = model.velocity(x_BNC, 0.7, model.encode_prompts(PROMPTS), family.guidances[-1])
    assert velocity.dtype == torch.float32
    assert torch.isfinite(velocity).all()


@pytest.mark.parametrize("family", CASES, ids=str)
def test_bfloat16_gives_the_network_the_stock_pipelines_times(family: Family, built: Built) -> None:
    """Where the pipeline rounds the time to its own dtype, training must see the rounded time that is deployed."""
    times: dict[nn.Module, list[float]] = {}

    def keep(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        time = named["timestep"] if "timestep" in named else arguments[1]
        times.setdefault(module, []).append(float(time[0]))

    model, stock = built.load(dtype=torch.bfloat16), family.load_stock(built.folder).to(torch.bfloat16)
    for network in (model.transformer, stock.transformer):
        network.register_forward_pre_hook(keep, with_kwargs=True)
    x_BNC, embeds, guidance = model.initial_latents([1]), model.encode_prompts(PROMPTS[:1]), family.guidances[0]
    with torch.no_grad():
        for t in model.sigmas(STEPS)[:-1]:
            model.velocity(x_BNC, t, embeds, guidance)
    family.stock_image(stock, PROMPTS[0], 1, STEPS, guidance)
    ours, theirs = (list(dict.fromkeys(found)) for found in times.values())
    assert ours == theirs
    assert len(ours) == STEPS


@pytest.mark.parametrize("family", CASES, ids=str)
def test_text_encoders_are_gone_when_dropped(family: Family, built: Built) -> None:
    model = built.load()
    model.encode_prompts(PROMPTS[:1])
    model.drop_text_encoders()
    assert all(getattr(model._pipeline, name) is None for name in model.text_components)
    assert distance(draw(model, built.embeds, [0], [7], 3.5), built.our_images([0], [7], 3.5)) < family.tolerance


@pytest.mark.parametrize("family", CASES, ids=str)
def test_lora_target_sets(family: Family, built: Built) -> None:
    sets = built.model.lora_target_sets
    attention, mlp, everything = (
        set(target_modules(built.model.transformer, name, sets)) for name in ("attention", "attention_mlp", "all")
    )
    assert attention
    assert attention < mlp < everything


@pytest.mark.parametrize(("family", "guidance"), GUIDED, ids=str)
def test_the_replay_ratio_is_one(family: Family, guidance: float, built: Built) -> None:
    """Drawn as the rollout does (folded adapter, among other rows), scored as the update does (with gradients)."""
    model = built.load()
    _randomise(add_adapter(model, LoRASpec(rank=2, alpha=5), "attention", seed=0))
    t, t_next, x_BNC = 0.9, 0.6, model.initial_latents([1, 2, 3, 4])
    rows = torch.tensor([0, 1, 1, 0])
    with torch.inference_mode(), folded_weights(model.transformer):
        v_BNC = model.velocity(x_BNC, t, built.embeds[rows], guidance)
        noise = torch.randn(x_BNC.shape, generator=torch.Generator().manual_seed(5))
        drawn = sde_step(x_BNC, v_BNC, t, t_next, t_1=0.95, eta=0.7, noise=noise)
    v_BNC = model.velocity(x_BNC[:2], t, built.embeds[rows[:2]], guidance)
    scored = sde_step(x_BNC[:2], v_BNC, t, t_next, t_1=0.95, eta=0.7, x_next=drawn.x_next[:2].clone())
    assert v_BNC.requires_grad
    ratio_B = torch.exp(scored.log_prob.detach() - drawn.log_prob[:2])
    assert float((ratio_B - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("family", CASES, ids=str)
def test_gradient_checkpointing_changes_no_gradient(family: Family, built: Built) -> None:
    """After a forward in the rollout's inference mode, whose cached tensors must be fit for the update."""
    model, guidance = built.load(), family.guidances[-1]
    parameters = add_adapter(model, LoRASpec(rank=2, alpha=5), "attention", seed=0)
    _randomise(parameters)
    x_BNC = model.initial_latents([1, 2])
    with torch.inference_mode():
        model.velocity(x_BNC, 0.7, built.embeds, guidance)
    gradients = []
    for enable in (model.transformer.disable_gradient_checkpointing, model.transformer.enable_gradient_checkpointing):
        enable()
        velocity = model.velocity(x_BNC, 0.7, built.embeds, guidance)
        gradients.append(
            torch.autograd.grad(velocity.square().mean(), [p for _, p in parameters], materialize_grads=True)
        )
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 1e-4
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", CASES, ids=str)
def test_one_training_step(family: Family, built: Built, tmp_path: Path) -> None:
    """A whole run of one update, from the folder to the exported adapter."""
    height, width = family.size
    spec = short_spec(
        built.folder,
        method={"sampling_steps": 3, "group_size": 2, "active_steps": [1], "guidance_scale": family.guidances[-1]},
        training={"steps": 1, "prompts_per_update": 2},
        evaluation={"prompts": 1, "images_per_prompt": 1},
        height=height,
        width=width,
    )
    train(spec, tmp_path, rewards=[WeightedReward(Redness(), 1.0)])
    rows = [json.loads(line) for line in (tmp_path / "metrics.ndjson").read_text().splitlines()]
    (values,) = [row["values"] for row in rows if "loss" in row["values"]]
    assert math.isfinite(values["loss"])
    assert values["grad_norm"] > 0
    assert values["ratio_deviation"] == 0
    tensors = load_file(tmp_path / "adapter" / "pytorch_lora_weights.safetensors")
    # The second factor starts at zero: what is there came from the update.
    assert any(float(tensor.abs().max()) > 0 for name, tensor in tensors.items() if "lora_B" in name)


@pytest.mark.parametrize("family", CASES, ids=str)
def test_stock_diffusers_and_peft_draw_the_trainers_image(family: Family, built: Built, tmp_path: Path) -> None:
    """The exported adapter, on every linear layer and alpha not rank, against the one in place; it is seen at all."""
    guidance = family.guidances[-1]
    model = built.load()
    _randomise(add_adapter(model, LoRASpec(rank=2, alpha=5), "all", seed=0))
    ours = draw(model, built.embeds, [0], [SEEDS[0]], guidance)
    name = export_adapter(model, tmp_path, ["diffusers", "peft"])[0]
    pipeline = family.load_stock(built.folder)
    pipeline.load_lora_weights(str(tmp_path), weight_name=name)
    by_diffusers = family.stock_image(pipeline, PROMPTS[0], SEEDS[0], STEPS, guidance)
    pipeline.unload_lora_weights()
    pipeline.transformer = PeftModel.from_pretrained(pipeline.transformer, tmp_path / "peft")
    by_peft = family.stock_image(pipeline, PROMPTS[0], SEEDS[0], STEPS, guidance)
    assert distance(ours, by_diffusers) < 10 * family.tolerance
    assert distance(ours, by_peft) < 10 * family.tolerance
    assert distance(ours, built.stock_image(PROMPTS[0], SEEDS[0], guidance)) > DIFFERENT * 10 * family.tolerance


def _randomise(parameters: list[tuple[str, nn.Parameter]]) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in parameters:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
