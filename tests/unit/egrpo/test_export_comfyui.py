"""The ComfyUI file of every family: the keys, and the image that ComfyUI's own arithmetic draws with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfyui_rules
import pytest
import torch
from diffusers import (
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    Lumina2Transformer2DModel,
    SD3Transformer2DModel,
    ZImageTransformer2DModel,
)
from diffusers.loaders import single_file_utils
from families import PROMPTS, Family, all_families
from peft.tuners.lora import Linear as LoRALinear
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from egrpo.config import LoRASpec
from egrpo.errors import ConfigError
from egrpo.export import export_adapter
from egrpo.export.comfyui_file import joined
from egrpo.export.comfyui_keys import check_formats, refused_format
from egrpo.lora import add_adapter
from egrpo.models import family_of
from egrpo.models.adapter import ModelAdapter
from egrpo.rollout import Sampler

GOLDEN = Path(__file__).parents[2] / "golden" / "comfyui_keys"
RANK, ALPHA = 2, 5.0
SEED, STEPS = 9, 3
# One case of each adapter: FLUX.1-dev has all layers of FLUX.1-schnell.
CASES = [
    family
    for family in {family.family: family for family in reversed(all_families())}.values()
    if refused_format(["comfyui"], family.family) is None
]
# Families whose loader in diffusers takes alpha tensors beside names of diffusers.
READ_BY_DIFFUSERS = ("flux", "qwen_image", "z_image")


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    return {}


@pytest.fixture
def folder(family: Family, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if family.name not in folders:
        folders[family.name] = family.build(tmp_path_factory.mktemp("comfyui") / family.name)
    return folders[family.name]


def load(folder: Path, family: Family) -> ModelAdapter:
    height, width = family.size
    return family_of(str(folder), None).load(str(folder), height=height, width=width)


def trained(folder: Path, family: Family, targets: Any = "all") -> ModelAdapter:
    """A model with an adapter that does something, alpha and rank not the same."""
    model = load(folder, family)
    parameters = add_adapter(model, LoRASpec(rank=RANK, alpha=ALPHA), targets, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in parameters:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def exported(model: ModelAdapter, folder: Path) -> dict[str, Tensor]:
    (name,) = export_adapter(model, folder, ["comfyui"])
    tensors: dict[str, Tensor] = load_file(folder / name)
    return tensors


def draw(model: ModelAdapter, guidance: float) -> Tensor:
    embeds, row = model.encode_prompts(PROMPTS[:1]), torch.tensor([0])
    latents = Sampler(model, guidance, 8).ode(model.initial_latents([SEED]), model.sigmas(STEPS), embeds, row)
    return model.decode(latents)


def test_every_family_that_is_not_refused_has_a_golden_list() -> None:
    assert {family.family for family in CASES} <= {path.stem for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("family", CASES, ids=str)
def test_every_key_of_every_layer_is_in_comfyuis_map(family: Family, folder: Path, tmp_path: Path) -> None:
    """All linear layers of the family against the golden list, which was read off ComfyUI's map."""
    file = exported(trained(folder, family), tmp_path)
    places = comfyui_rules.layout(family.family, load(folder, family).transformer)
    keys = comfyui_rules.key_map(family.family, places)
    stems = sorted({name.removesuffix(".alpha") for name in file if name.endswith(".alpha")})
    lines = [f"{stem} -> {keys[stem]}" for stem in stems]
    assert lines == (GOLDEN / f"{family.family}.txt").read_text().splitlines()
    assert set(file) == {f"{stem}{end}" for stem in stems for end in (".lora_A.weight", ".lora_B.weight", ".alpha")}


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("family", CASES, ids=str)
def test_comfyuis_arithmetic_draws_the_trainers_image(
    family: Family, folder: Path, tmp_path: Path, targets: str
) -> None:
    """On the base model's weights in ComfyUI's own layout; and it is seen at all."""
    model, guidance = trained(folder, family, targets), family.guidances[-1]
    file, ours = exported(model, tmp_path), draw(model, guidance)
    pipeline = family.load_stock(folder)
    without = family.stock_image(pipeline, PROMPTS[0], SEED, STEPS, guidance)
    places = comfyui_rules.layout(family.family, pipeline.transformer)
    modules = {layer: pipeline.transformer.get_submodule(layer) for layer in places}
    weights = comfyui_rules.to_comfyui({layer: module.weight.data for layer, module in modules.items()}, places)
    comfyui_rules.patch(weights, file, comfyui_rules.key_map(family.family, places))
    for layer, weight in comfyui_rules.from_comfyui(weights, places).items():
        modules[layer].weight.data = weight
    drawn = family.stock_image(pipeline, PROMPTS[0], SEED, STEPS, guidance)
    assert float((drawn - ours).abs().max()) < 10 * family.tolerance
    assert float((without - ours).abs().max()) > 200 * family.tolerance


def test_alpha_is_the_rank_and_the_scale_is_in_the_matrices(random_flux: Path, tmp_path: Path) -> None:
    (flux,) = [family for family in CASES if family.family == "flux"]
    model = trained(random_flux, flux, ["attn.to_q"])
    file = exported(model, tmp_path)
    key = "transformer.transformer_blocks.0.attn.to_q"
    layer = model.transformer.transformer_blocks[0].attn.to_q
    assert float(file[f"{key}.alpha"]) == RANK
    torch.testing.assert_close(file[f"{key}.lora_A.weight"], layer.lora_A["default"].weight)
    torch.testing.assert_close(file[f"{key}.lora_B.weight"], layer.lora_B["default"].weight * ALPHA / RANK)
    with safe_open(tmp_path / "comfyui_lora.safetensors", "pt") as opened:
        assert opened.metadata() == {
            "format": "pt", "rank": "2", "alpha": "2", "trained_alpha": "5.0", "scale": "folded into lora_B"
        }  # fmt: skip


@pytest.mark.parametrize("family", [family for family in CASES if family.family in READ_BY_DIFFUSERS], ids=str)
def test_stock_diffusers_reads_the_comfyui_file_too(family: Family, folder: Path, tmp_path: Path) -> None:
    """diffusers' own reading of alpha tensors beside diffusers' names."""
    model = trained(folder, family)
    file = exported(model, tmp_path)
    pipeline = family.load_stock(folder)
    pipeline.load_lora_weights(str(tmp_path), weight_name="comfyui_lora.safetensors")
    ours = dict(model.transformer.named_modules())
    loaded = {name: module for name, module in pipeline.transformer.named_modules() if isinstance(module, LoRALinear)}
    assert 3 * len(loaded) == len(file)
    for name, module in loaded.items():
        (adapter,) = module.active_adapters
        torch.testing.assert_close(module.get_delta_weight(adapter), ours[name].get_delta_weight("default"))


class Checkpoint(dict[str, torch.Tensor]):
    """An original checkpoint of which only the linear layers are of interest: norms are whatever is asked for."""

    def pop(self, key: str, *_: Any) -> torch.Tensor:
        """Returns the tensor, or one that stands for a norm's."""
        return super().pop(key, torch.zeros(1))


ORIGINALS: dict[str, tuple[type[Any], dict[str, Any], Any]] = {
    "flux": (
        FluxTransformer2DModel,
        {"num_layers": 2, "num_single_layers": 2, "guidance_embeds": True},
        single_file_utils.convert_flux_transformer_checkpoint_to_diffusers,
    ),
    "flux2": (
        Flux2Transformer2DModel,
        {"num_layers": 2, "num_single_layers": 2},
        single_file_utils.convert_flux2_transformer_checkpoint_to_diffusers,
    ),
    "sd3": (
        SD3Transformer2DModel,
        {"num_layers": 2, "dual_attention_layers": (0,), "num_attention_heads": 24, "caption_projection_dim": 1536},
        single_file_utils.convert_sd3_transformer_checkpoint_to_diffusers,
    ),
    "z_image": (
        ZImageTransformer2DModel,
        {"n_layers": 2},
        single_file_utils.convert_z_image_transformer_checkpoint_to_diffusers,
    ),
    "lumina2": (Lumina2Transformer2DModel, {"num_layers": 2}, single_file_utils.convert_lumina2_to_diffusers),
}


@pytest.mark.parametrize("family", sorted(ORIGINALS))
def test_the_layout_is_that_of_original_checkpoints(family: str) -> None:
    """Our reading of ComfyUI's layout against diffusers' converter from it, at the real model's widths.

    Every row of every weight has its own number, so that a wrong layer, offset or half is seen. Qwen-Image has no
    other layout than that of diffusers.
    """
    transformer_class, config, convert = ORIGINALS[family]
    with torch.device("meta"):
        transformer = transformer_class(**config)
    places = comfyui_rules.layout(family, transformer)
    sizes: dict[str, int] = {}
    for place in places.values():
        sizes[place.weight] = sizes.get(place.weight, 0) + place.length
    numbered, start = Checkpoint(), 0
    for name, size in sizes.items():
        numbered[name] = torch.arange(start, start + size, dtype=torch.float64)[:, None]
        numbered[name.replace(".weight", ".bias")] = numbered[name].flatten()
        start += size
    expected = comfyui_rules.from_comfyui(numbered, places)
    converted = convert(Checkpoint(numbered))
    for layer, rows in expected.items():
        assert torch.equal(converted[f"{layer}.weight"], rows), layer


def test_a_layer_without_an_adapter_is_rows_of_zeros_in_a_joined_weight() -> None:
    """Query and value adapted, key not; each product in its own rows."""
    draws = torch.Generator().manual_seed(1)
    shapes = {"q.lora_A": (2, 5), "q.lora_B": (4, 2), "v.lora_A": (2, 5), "v.lora_B": (3, 2)}
    tensors = {f"{name}.weight": torch.randn(shape, generator=draws) for name, shape in shapes.items()}
    down, up = joined({"q": 4, "k": 3, "v": 3}, tensors)
    assert down.shape == (4, 5)
    query, value = (tensors[f"{n}.lora_B.weight"] @ tensors[f"{n}.lora_A.weight"] for n in ("q", "v"))
    torch.testing.assert_close(up @ down, torch.cat([query, torch.zeros(3, 5), value]))


def test_a_family_without_a_key_map_is_refused() -> None:
    check_formats(["diffusers", "peft"], "sana")
    with pytest.raises(ConfigError, match=r"^/export/formats/1: ComfyUI has no key map for the family 'sana'; "):
        check_formats(["diffusers", "comfyui"], "sana")
    check_formats(["comfyui"], "flux")
