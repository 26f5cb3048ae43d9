"""What is published of base models: as diffusers builds them, as large as their files, and as the trainer sees them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from egrpo_runs import spec_document
from families import Family, all_families
from torch.utils.flop_counter import FlopCounterMode

from egrpo import catalogue, forecast
from egrpo.compute import pass_flops
from egrpo.config import TrainSpec, parse_spec
from egrpo.errors import ConfigError
from egrpo.expected_memory import expected_memory
from egrpo.geometry import batch_geometry
from egrpo.gpus import GPUS, gpu_of
from egrpo.lora import is_linear
from egrpo.memory import CPU_HEAP
from egrpo.models import family_of, load_model
from egrpo.models.adapter import ModelAdapter
from egrpo.policy import Policy
from egrpo.published import architectures, folded_names, unfolded_names
from egrpo.published.build import FILE_BYTES, PUBLISHED, document, network, of_loaded

CPU = torch.device("cpu")
GUIDED_ABOVE = {"flux": None, "flux2": 1, "lumina2": 1, "qwen_image": 1, "sana": 1, "sd3": 1, "z_image": 0}
FAMILIES = all_families()
SIGMAS = [1, 0.8, 0.6, 0.4, 0.2, 0.1, 0]


def test_the_file_is_what_the_configurations_make() -> None:
    from egrpo.published import FILE

    assert FILE.read_text() == document()
    assert set(architectures()) == set(catalogue.MODELS)


@pytest.mark.parametrize("model_id", PUBLISHED)
def test_the_parts_are_as_large_as_the_published_files(model_id: str) -> None:
    found, (transformer, vae, texts) = architectures()[model_id], FILE_BYTES[model_id]
    parameters = found.transformer_parameters + found.transformer_buffers
    assert 2 * parameters == pytest.approx(transformer, rel=0.01)
    assert 2 * found.autoencoder_parameters == pytest.approx(vae, rel=0.01)
    assert 2 * found.text_parameters == pytest.approx(sum(texts), rel=0.01)
    assert (found.decoder_channels, found.text_width) == (96 if model_id == "qwen-image" else 128, max_width(model_id))


def max_width(model_id: str) -> int:
    configs = [config for _, config in PUBLISHED[model_id].text_encoders]
    return max(c.get("hidden_size") or c.get("d_model") or c["text_config"]["hidden_size"] for c in configs)


@pytest.mark.parametrize("model_id", PUBLISHED)
def test_the_layers_for_an_adapter_are_known_by_their_shapes(model_id: str) -> None:
    transformer = network(PUBLISHED[model_id].transformer)
    linear = [name for name, module in transformer.named_modules() if is_linear(module)]
    assert set(architectures()[model_id].linear_layers) == set(linear)


def test_names_are_folded_and_unfolded() -> None:
    shapes = {f"blocks.{i}.net.0.up.weight": (2, 3) for i in (0, 1, 2, 5)} | {"x.2-1.weight": (4,), "bias": (1,)}
    folded = folded_names(shapes)
    assert folded == {
        "blocks.[0-2].net.0.up.weight": [2, 3],
        "blocks.[5-5].net.0.up.weight": [2, 3],
        "x.2-1.weight": [4],
        "bias": [1],
    }
    assert unfolded_names(folded) == shapes


def inputs(model_id: str, latents: int, text: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns what a transformer takes for one image, on the meta device; the square root of `latents` is whole."""
    side = round(latents**0.5)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta")

    if model_id.startswith("z-image"):
        return ([empty(16, 1, 2 * side, 2 * side)], empty(1), [empty(text, 2560)]), {}
    named: dict[str, Any] = {"timestep": empty(1)}
    if model_id == "sd3.5-medium":
        named |= {"hidden_states": empty(1, 16, 2 * side, 2 * side), "pooled_projections": empty(1, 2048)}
        return (), named | {"encoder_hidden_states": empty(1, text, 4096)}
    if model_id == "qwen-image":
        named |= {"img_shapes": [[(1, side, side)]], "encoder_hidden_states_mask": None}
        return (), named | {"hidden_states": empty(1, latents, 64), "encoder_hidden_states": empty(1, text, 3584)}
    if model_id.startswith("flux-2"):
        named |= {"guidance": None, "txt_ids": empty(text, 4), "img_ids": empty(latents, 4)}
        return (), named | {"hidden_states": empty(1, latents, 128), "encoder_hidden_states": empty(1, text, 7680)}
    named |= {"guidance": empty(1), "pooled_projections": empty(1, 768)}
    named |= {"txt_ids": empty(text, 3), "img_ids": empty(latents, 3)}
    return (), named | {"hidden_states": empty(1, latents, 64), "encoder_hidden_states": empty(1, text, 4096)}


# Two or three blocks of each kind have everything that the whole has.
SHORT: Mapping[str, Mapping[str, Any]] = {
    "flux-1-dev": {"num_layers": 2, "num_single_layers": 3},
    "flux-2-klein-4b": {"num_layers": 2, "num_single_layers": 3},
    "qwen-image": {"num_layers": 2},
    "sd3.5-medium": {"num_layers": 3, "dual_attention_layers": (0, 1)},
    "z-image": {"n_layers": 2},
}


@pytest.mark.parametrize("model_id", SHORT)
def test_a_pass_takes_what_torch_counts(model_id: str) -> None:
    name, config = PUBLISHED[model_id].transformer
    transformer = network((name, {**config, **SHORT[model_id]}))
    arguments, named = inputs(model_id, latents=1024, text=320)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        transformer(*arguments, **named)
    shapes = {name: tuple(weight.shape) for name, weight in transformer.named_parameters()}
    counted = pass_flops(shapes, 1024, 320, PUBLISHED[model_id].hidden_width).forward
    # Embeddings and modulation are left out, which weigh more where there are few blocks.
    assert 0.95 < counted / counter.get_total_flops() < 1.001


@pytest.mark.parametrize(("mode", "checkpoints"), [("lora", False), ("lora", True), ("full", True)])
def test_an_update_takes_what_torch_counts(mode: str, checkpoints: bool) -> None:
    """Of FLUX.1 in small; the adapter's own products are the difference."""
    spec = tiny_spec(training={"mode": "full", "lora": None} if mode == "full" else {})
    model = load_model(spec, CPU)
    policy = Policy(model, spec, spec.method.plan(model.sigmas(6, 3.0)), "attention_mlp", lambda: None)
    if checkpoints:
        model.transformer.enable_gradient_checkpointing()
    embeds = model.encode_prompts(["a red circle"])
    with FlopCounterMode(display=False) as counter:
        model.velocity(model.initial_latents([0]), 0.5, embeds, 3.5).sum().backward()
    assert any(parameter.grad is not None for _, parameter in policy.parameters)
    published = architectures()["tiny-flux-shapes"]
    found = pass_flops(published.transformer, model.num_tokens, published.text_tokens, published.hidden_width)
    counted = found.update(trains_base=mode == "full", checkpoints_gradients=checkpoints)
    assert 0.8 < counted / counter.get_total_flops() < 1.1


def tiny_spec(**sections: Any) -> TrainSpec:
    return parse_spec(spec_document(Path("tiny-flux-shapes"), **sections))


def trainers_growth(spec: TrainSpec, model: ModelAdapter, targets: str) -> int:
    """Returns what the trainer, with its model loaded, says that the peak adds to what it holds."""
    plan = spec.method.plan(model.sigmas(spec.method.sampling_steps, 3.0))
    policy = Policy(model, spec, plan, targets, lambda: None)
    geometry = batch_geometry(spec, policy.sampler.micro_batch_size)
    prompts = sum(map(len, spec.split_prompts()))
    return expected_memory(spec, model, policy, geometry, prompts).growth_bytes


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"training": {"precision": "bfloat16", "gradient_checkpointing": True, "ema_decay": 0.9}},
        {"training": {"lora": {"rank": 64, "targets": ["to_q", "proj_mlp"]}}, "method": {"group_size": 40}},
        {"training": {"prompts_per_update": 64, "micro_batch_size": 64}, "height": 128, "width": 96},
        {"training": {"mode": "full", "lora": None}, "method": {"type": "flow_grpo", "active_steps": None}},
    ],
    ids=["lora", "bfloat16", "targets", "wide", "full"],
)
def test_the_service_says_of_memory_what_the_trainer_says(sections: dict[str, Any]) -> None:
    """On a CPU, where both can be had; what a process holds before is a constant here and measured there."""
    document = spec_document(Path("tiny-flux-shapes"), **sections)
    document["method"] = {name: value for name, value in document["method"].items() if value is not None}
    spec = parse_spec(document)
    found = forecast.forecast_memory(spec, "cpu")
    assert found is not None
    growth = trainers_growth(spec, load_model(spec, CPU), "attention_mlp")
    assert found.peak_bytes - found.held_bytes == int(growth * CPU_HEAP)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_it_does_so_for_every_family(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = family.build(tmp_path / "model")
    model = family_of(str(folder), None).load(str(folder), height=32, width=32)
    guided_above = None if len(family.guidances) == 1 else GUIDED_ABOVE[family.family]
    if model.passes_per_velocity(5.0) == 1:
        guided_above = None
    found = of_loaded(model, folder, "tests", guided_above)
    for guidance in (0.0, 0.5, 1.0, 1.5):
        assert found.passes(guidance) == model.passes_per_velocity(guidance)
    text_BLD = model.encode_prompts(["a red circle"]).tensors["sequence_BLD"]
    # Families whose text has a mask cut the padding that no prompt needs.
    is_padded = family.family in ("flux", "flux2", "sd3")
    assert text_BLD.shape[1] == model.num_text_tokens if is_padded else text_BLD.shape[1] <= model.num_text_tokens
    monkeypatch.setattr(forecast, "_model", lambda spec: forecast._Model(found, "attention", 32, 32))
    spec = parse_spec(spec_document(folder, height=32, width=32, method={"guidance_scale": 4.0}))
    said = forecast.forecast_memory(spec, "cpu")
    assert said is not None
    growth = trainers_growth(spec, model, "attention")
    assert said.peak_bytes - said.held_bytes == int(growth * CPU_HEAP)


def hub_spec(**sections: Any) -> TrainSpec:
    return parse_spec(spec_document(Path("flux-1-dev"), **sections))


def test_a_gpu_computes_in_bfloat16_and_takes_more_at_once() -> None:
    on_gpu, on_cpu = (forecast.forecast_memory(hub_spec(), device) for device in ("gpu", "cpu"))
    assert on_gpu is not None
    assert on_cpu is not None
    assert (on_gpu.precision, on_cpu.precision) == ("bfloat16", "float32")
    assert on_gpu.micro_batch == 7, "as egrpo.geometry says of FLUX.1 at 512 pixels"
    assert on_gpu.held_bytes == 2 * (11_901_408_320 + 83_819_683)
    assert on_gpu.peak_bytes < on_cpu.peak_bytes / 2
    medium = forecast.forecast_memory(parse_spec(spec_document(Path("sd3.5-medium"))), "gpu")
    assert medium is not None
    assert medium.held_bytes == 2 * (2_243_171_520 + 226_492_416 + 83_819_683), "with its table of positions"


def test_processes_share_a_sharded_fine_tune() -> None:
    full = {"training": {"mode": "full", "lora": None, "prompts_per_update": 8}}
    sharded = {"training": {**full["training"], "sharding": "fsdp2"}}
    alone, whole = (forecast.forecast_memory(hub_spec(**full), "gpu", count) for count in (1, 8))
    shared = forecast.forecast_memory(hub_spec(**sharded), "gpu", 8)
    assert alone is not None
    assert shared is not None
    assert whole is not None
    assert whole.held_bytes == alone.held_bytes
    assert whole.peak_bytes < alone.peak_bytes, "each draws an eighth of the images"
    # Weights, gradients and two moments, of 4 bytes each.
    assert whole.peak_bytes - shared.peak_bytes == pytest.approx(11_901_408_320 * 16 * 7 / 8, rel=0.01)


def test_moments_in_8_bits_are_counted_as_they_are_kept() -> None:
    wide, narrow = (
        forecast.forecast_memory(hub_spec(training={"mode": "full", "lora": None, "optimizer": optimizer}), "gpu")
        for optimizer in ("adamw", "adamw_8bit")
    )
    assert wide is not None
    assert narrow is not None
    # Two moments of 4 bytes, or of one and a float32 for every 256.
    assert wide.peak_bytes - narrow.peak_bytes == pytest.approx(11_901_408_320 * (8 - 2 * (1 + 4 / 256)), rel=1e-6)


def test_a_model_by_its_repository_has_its_familys_size() -> None:
    entry = catalogue.MODELS["flux-1-dev"]
    by_repo = {**spec_document(Path("flux-1-dev")), "base_model": {"repo": entry.repo, "revision": entry.revision}}
    plan = hub_spec().method.plan(SIGMAS)
    by_id, same, larger = (
        forecast.forecast_work(spec, plan)
        for spec in (hub_spec(), parse_spec({**by_repo, "height": 512, "width": 512}), parse_spec(by_repo))
    )
    assert by_id is not None
    assert larger is not None
    assert same == by_id
    assert larger.per_pass > 3 * by_id.per_pass


def test_of_a_model_of_ones_own_nothing_is_said(random_flux: Path) -> None:
    spec = parse_spec(spec_document(random_flux))
    plan = spec.method.plan(SIGMAS)
    assert (forecast.forecast_memory(spec, "gpu"), forecast.forecast_work(spec, plan)) == (None, None)


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="'to_z' fits no linear layer"):
        forecast.forecast_memory(hub_spec(training={"lora": {"targets": ["to_z"]}}), "gpu")


def test_the_work_of_a_run_by_hand() -> None:
    """Of 4 steps on 2 prompts of 3 groups of 3: one pass each way, what is asked again, and what minibatches ask."""
    plan = hub_spec().method.plan(SIGMAS)
    evaluations, latents = hub_spec().method.network_evaluations(plan)[0], 3
    found = forecast.forecast_work(hub_spec(), plan)
    assert found is not None
    flops = pass_flops(architectures()["flux-1-dev"].transformer, 1024, 512, 3072)
    assert found.per_pass == flops.forward
    update = 3 * flops.linear + 4 * flops.attention  # forward twice, as the model is large
    decoding = 10 * 512 * 512 * architectures()["flux-1-dev"].decoder_flops_per_pixel
    each = decoding + evaluations * flops.forward + latents * update
    assert found.per_update == (2 * each, 2 * each)
    assert found.in_all == (8 * each, 8 * each)

    def per_update(**training: Any) -> int:
        other = forecast.forecast_work(hub_spec(training=training), plan)
        assert other is not None
        return other.per_update[0]

    assert per_update(kl_weight=0.1) == 2 * (each + latents * flops.forward)
    assert per_update(updates_per_rollout=2) == each + latents * update
    assert per_update(minibatches_per_rollout=2) == 2 * each + latents * flops.forward
    assert per_update(gradient_checkpointing=False) == 2 * (each - latents * flops.forward)
    full = {"mode": "full", "lora": None}
    assert per_update(**full) == 2 * (each + latents * flops.linear)


@pytest.mark.parametrize(
    ("gpu_type", "name", "memory_gib"),
    [
        ("h100", "h100", 80),
        ("h100-80gb-hbm3", "h100", 80),
        ("h100-pcie", "h100-pcie", 80),
        ("a100-sxm4-40gb", "a100", 40),
        ("a100-sxm4-80gb", "a100", 80),
        ("nvidia-l40s", "l40s", 48),
        ("rtx-4090", "rtx-4090", 24),
        ("4090", "rtx-4090", 24),
        ("rtx-4090-laptop-gpu", None, 0),
        ("h1000", None, 0),
        ("mi300x", None, 0),
        ("cpu", None, 0),
    ],
)
def test_gpus_are_known_by_the_names_that_workers_report(gpu_type: str, name: str | None, memory_gib: int) -> None:
    found = gpu_of(gpu_type)
    if name is None:
        assert found is None
    else:
        assert found is not None
        assert (found.bfloat16_flops, found.memory_gib) == (GPUS[name].bfloat16_flops, memory_gib)


def test_no_configuration_stands_for_two_models_by_mistake() -> None:
    assert set(PUBLISHED) == set(FILE_BYTES) == {entry.id for entry in catalogue.MODELS.values() if entry.repo}
    assert all(re.search(r"[0-9a-f]{40}$", architectures()[model_id].source) for model_id in PUBLISHED)
