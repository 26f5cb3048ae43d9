"""The memory estimate: by hand on a toy, against what autograd really keeps, and against the device."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from egrpo import catalogue, device_memory
from egrpo.config import LoRASpec, parse_spec
from egrpo.device_memory import DeviceMemory, cgroup_free_bytes, check_memory, peak_bytes
from egrpo.errors import MemoryLimitError
from egrpo.geometry import Passage, batch_geometry, workload
from egrpo.lora import adapted_layers, add_adapter
from egrpo.memory import MemoryEstimate, ModelSizes, Workload, block_layers, estimate
from egrpo.model_sizes import sizes_of_folder, sizes_of_modules, text_encoder_shapes
from egrpo.models.flux import FluxAdapter

CPU = torch.device("cpu")
FOLDER = Path(catalogue.__file__).parent / "tiny" / "weights"
WORK = Workload(
    latent_tokens=10,
    latent_channels=4,
    text_tokens=6,
    pixels=100,
    micro_batch=5,
    update_batch=2,
    decode_batch=3,
    encode_batch=64,
    num_prompts=1,
    images_per_update=20,
    trained=100,
    adapted=["blocks.0.up"],
)
TOY = ModelSizes(
    transformer={"blocks.0.up.weight": (8, 2), "blocks.0.norm.linear.weight": (9, 2), "blocks.0.up.bias": (8,)},
    weight_bytes=4,
    autoencoder_bytes=1000,
    text_bytes=3000,
    decoder_channels=7,
    text_width=2,
)


def test_the_estimate_of_a_toy_by_hand() -> None:
    found = estimate(TOY, WORK)
    assert found.weights == (16 + 18 + 8) * 4 + 1000
    assert found.text_encoders == 3000
    assert found.adapter == 100 * (4 + 4 + 8)
    outputs, embedding, latents = 16 * 8, 6 * 2 * 4, 20 * 10 * 4 * 4
    transient = 3.4 * outputs * 4
    assert found.phases["rollout"] == int(embedding + 7 * latents + 5 * (transient + embedding))
    assert found.phases["decoding"] == int(embedding + 7 * latents + 3 * 100 * 7 * 10 * 4)
    kept = 1.5 * outputs * 4 + 16 * 2 * 4
    assert found.phases["update"] == int(embedding + 3 * latents + 2 * (kept + transient + embedding))
    assert found.phases["encoding"] == int(embedding + (12 * 6 * 2 + 2 * 36) * 4)
    assert found.largest_phase == "decoding"
    assert found.growth_bytes == found.phases["decoding"] + found.adapter


def test_a_convolution_over_single_positions_is_a_linear_layer() -> None:
    convolution = replace(TOY, transformer={**TOY.transformer, "blocks.0.up.weight": (8, 2, 1, 1)})
    assert estimate(convolution, WORK) == estimate(TOY, WORK)


def test_a_block_is_what_stands_behind_the_first_number() -> None:
    shapes = {
        "blocks.1.attn.to_q.weight": (4, 4),
        "blocks.1.ff.net.0.proj.weight": (16, 4),
        "blocks.1.ff_context.net.2.weight": (4, 16),
        "blocks.1.img_mod.1.weight": (24, 4),
        "noise_refiner.0.up.weight": (8, 4),
        "context_refiner.0.up.weight": (8, 4),
    }
    found = block_layers(shapes, latent_tokens=10, text_tokens=6)
    assert {block: {layer.name: layer.tokens for layer in layers} for block, layers in found.items()} == {
        "blocks.1": {"blocks.1.attn.to_q": 10, "blocks.1.ff.net.0.proj": 10, "blocks.1.ff_context.net.2": 6},
        "noise_refiner.0": {"noise_refiner.0.up": 10},
        "context_refiner.0": {"context_refiner.0.up": 6},
    }


def test_what_takes_more_and_what_takes_less() -> None:
    plain = estimate(TOY, WORK)
    average = estimate(TOY, replace(WORK, has_average=True))
    assert average.adapter == plain.adapter + 400
    assert estimate(TOY, replace(WORK, trains_base=True)).adapter == plain.adapter - 400
    in_bytes = estimate(TOY, replace(WORK, trained=25_600, has_narrow_moments=True))
    assert in_bytes.adapter == 25_600 * (4 + 4) + 2 * (25_600 + 100 * 4)
    folded = estimate(TOY, replace(WORK, folds=True))
    assert folded.phases["rollout"] == plain.phases["rollout"] + 16 * 4
    narrow = estimate(replace(TOY, weight_bytes=2), WORK)
    assert narrow.phases["update"] < plain.phases["update"]


def saved_bytes(model: FluxAdapter, batch: int) -> int:
    """Returns the bytes that autograd keeps for the backward pass of one forward, weights not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.transformer.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    embeds = model.encode_prompts(["a red circle"] * batch)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        velocity = model.velocity(model.initial_latents(range(batch)), 0.7, embeds, 3.5)
    assert velocity.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("targets", ["attention", "attention_mlp", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_activations_are_estimated_within_a_factor(targets: str, dtype: torch.dtype) -> None:
    """Of tiny-flux-shapes, by its kept tensors; within a factor of 1.6 above and 1.33 below."""
    model = FluxAdapter.load(str(FOLDER), dtype=dtype)
    add_adapter(model, LoRASpec(rank=4, alpha=4), targets, seed=0)
    layers = adapted_layers(model.transformer)
    sizes = sizes_of_modules(model.transformer, model.vae, text_encoder_shapes(FOLDER))
    one = replace(
        WORK,
        latent_tokens=model.num_tokens,
        text_tokens=model.max_sequence_length,
        adapted=list(layers),
        update_batch=1,
    )
    more = replace(one, update_batch=2)
    # The step from one latent to two is what a latent costs; its share without gradients is not kept.
    per_latent = estimate(sizes, more).phases["update"] - estimate(sizes, one).phases["update"]
    widest = 3.4 * 9 * 192 * (model.num_tokens + model.max_sequence_length) * sizes.weight_bytes
    embedding = one.text_tokens * sizes.text_width * sizes.weight_bytes
    assert 0.75 < (per_latent - widest - embedding) / (saved_bytes(model, 4) / 4) < 1.6


def test_a_folder_tells_what_the_loaded_model_tells() -> None:
    model = FluxAdapter.load(str(FOLDER))
    loaded = sizes_of_modules(model.transformer, model.vae, text_encoder_shapes(FOLDER))
    read = sizes_of_folder(FOLDER, weight_bytes=4)
    assert read.transformer == loaded.transformer
    assert read.autoencoder_bytes == loaded.autoencoder_bytes
    assert read.text_bytes == loaded.text_bytes > 0
    assert (read.decoder_channels, read.text_width) == (loaded.decoder_channels, loaded.text_width) == (16, 96)
    add_adapter(model, LoRASpec(rank=4, alpha=4), "all", seed=0)
    adapted = sizes_of_modules(model.transformer, model.vae, text_encoder_shapes(FOLDER))
    assert adapted.transformer == loaded.transformer


def expected(phase: str) -> MemoryEstimate:
    phases = dict.fromkeys(("encoding", "rollout", "decoding", "update"), 0) | {phase: 2**31}
    return MemoryEstimate(weights=2**30, text_encoders=0, adapter=0, phases=phases)


@pytest.mark.parametrize(
    ("phase", "remedy"),
    [
        ("encoding", "shorter prompts"),
        ("rollout", "group_size"),
        ("decoding", "height and width"),
        ("update", "lora.rank"),
    ],
)
def test_a_run_that_does_not_fit_is_stopped_with_what_to_change(
    monkeypatch: pytest.MonkeyPatch, phase: str, remedy: str
) -> None:
    monkeypatch.setattr(device_memory, "device_memory", lambda device: DeviceMemory(2**30, 3 * 2**30))
    with pytest.raises(MemoryLimitError, match=rf"about 4\.200 GiB .* phase {phase}, of 4\.000 GiB on cpu.*{remedy}"):
        check_memory(expected(phase), CPU)
    monkeypatch.setattr(device_memory, "device_memory", lambda device: DeviceMemory(2**30, 4 * 2**30))
    assert check_memory(expected(phase), CPU).endswith("of 5.000 GiB on cpu")
    monkeypatch.setattr(device_memory, "device_memory", lambda device: DeviceMemory(2**30, None))
    assert check_memory(expected(phase), CPU).endswith(f"in the phase {phase}")


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    assert cgroup_free_bytes(tmp_path) == sys.maxsize
    for name, text in {"max": "1000", "current": "600", "stat": "anon 500\ninactive_file 60\nactive_file 30"}.items():
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    assert cgroup_free_bytes(tmp_path) == 490
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroup_free_bytes(tmp_path) == sys.maxsize


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_this_process_and_grows() -> None:
    before = peak_bytes(CPU)
    held = torch.ones(2**27)  # 512 MiB
    assert peak_bytes(CPU) >= max(before, held.nbytes)


def test_the_geometry_is_one_line() -> None:
    spec = parse_spec(
        {
            "base_model": "tiny-flux-shapes",
            "prompts": {"inline": ["a red circle"]},
            "reward": {"components": [{"type": "shapes"}]},
            "method": {"group_size": 6, "active_steps_per_update": 2},
            "training": {"prompts_per_update": 4, "updates_per_rollout": 3},
        }
    )
    geometry = batch_geometry(spec, micro_batch=50)
    assert geometry.images == 48
    assert str(geometry) == (
        "48 images per update = 4 prompts x 12 images; 3 updates on a rollout of 48 images, and 4 anchors; "
        "50 images pass the network at once; 1 process"
    )
    shared = batch_geometry(spec, micro_batch=50, processes=2)
    assert (shared.images, shared.own_prompts, shared.own_rows) == (48, 2, 26)
    assert str(shared).endswith("; shared by 2 processes")


def test_each_process_holds_its_own_share_of_a_rollout() -> None:
    spec = parse_spec(
        {
            "base_model": "tiny-flux-shapes",
            "prompts": {"inline": ["a red circle"]},
            "reward": {"components": [{"type": "shapes"}]},
            "training": {"prompts_per_update": 8},
        }
    )
    passage = Passage(
        latent_tokens=10, latent_channels=4, text_tokens=6, pixels=100, passes=1, decode_batch=1000, encode_batch=64
    )

    def of(processes: int) -> Workload:
        geometry = batch_geometry(spec, micro_batch=1000, processes=processes)
        return workload(
            spec,
            geometry,
            passage,
            num_prompts=1,
            trained=1,
            adapted=[],
            trains_base=False,
            folds=False,
            checkpoints=False,
        )

    alone, one_of_four = of(1), of(4)
    for number in ("images_per_update", "micro_batch", "update_batch", "decode_batch"):
        assert getattr(one_of_four, number) * 4 == getattr(alone, number), number


def test_the_estimate_is_free_of_torch() -> None:
    code = "import sys, egrpo.memory, egrpo.model_sizes, egrpo.forecast; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
