"""Makes `architectures.json`: `python -m egrpo.published.build`, in a second or two, without a weight or a network.

Every network is built on torch's meta device from its published configuration, written out here. Sources: the
`config.json` of each part in the repository and at the commit that the catalogue names, as diffusers' and transformers'
own classes and conversion scripts have them too. The number of parameters must be what the sizes of the published files
come to (`FILE_BYTES`), which a test holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from egrpo import catalogue
from egrpo.model_sizes import decoder_channels, text_encoder_shapes, text_width
from egrpo.models import FAMILIES, family_of
from egrpo.models.adapter import ModelAdapter
from egrpo.published import FILE, Architecture

# Where the work of decoding is counted; above this it grows with the pixels but for one attention over all of them.
_DECODED = 512

Part = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Published:
    """The configurations of a pipeline's parts, by class, and what its adapter reads from its tokenizers.

    `text_length` is what a prompt is cut to; `extra_text` what the network sees of it beside that, and
    `positions_per_token` how many positions of the autoencoder's latent are one token, along each axis.
    """

    transformer: Part
    vae: Part
    text_encoders: tuple[Part, ...]
    guided_above: float | None
    hidden_width: int
    latent_channels: int
    text_length: int = 512
    extra_text: int = 0
    vae_scale: int = 8
    positions_per_token: int = 2
    native_size: int = 1024


_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_CLIP_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
_T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
_QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
_QWEN25_VL_7B = {
    "text_config": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
    },
    "tie_word_embeddings": False,
}
# FLUX.1's autoencoder, which Stable Diffusion 3 and Z-Image have in the same shape.
_KL_16 = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 2,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_FLUX_TEXTS: tuple[Part, ...] = (("CLIPTextModel", _CLIP_L), ("T5EncoderModel", _T5_XXL))


def _flux(guidance_embeds: bool) -> Published:
    transformer = {"num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24, "attention_head_dim": 128}
    return Published(
        transformer=("FluxTransformer2DModel", {**transformer, "guidance_embeds": guidance_embeds}),
        vae=("AutoencoderKL", _KL_16),
        text_encoders=_FLUX_TEXTS,
        guided_above=None,
        hidden_width=3072,
        latent_channels=64,
    )


def _klein(is_distilled: bool) -> Published:
    transformer = {
        "num_layers": 5,
        "num_single_layers": 20,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "joint_attention_dim": 7680,
        "in_channels": 128,
        "guidance_embeds": False,
    }
    return Published(
        transformer=("Flux2Transformer2DModel", transformer),
        vae=("AutoencoderKLFlux2", {}),
        text_encoders=(("Qwen3ForCausalLM", _QWEN3_4B),),
        guided_above=None if is_distilled else 1,
        hidden_width=3072,
        latent_channels=128,
    )


def _z_image() -> Published:
    transformer = {
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "cap_feat_dim": 2560,
    }
    return Published(
        transformer=("ZImageTransformer2DModel", transformer),
        vae=("AutoencoderKL", _KL_16),
        text_encoders=(("Qwen3Model", _QWEN3_4B),),
        guided_above=0,
        hidden_width=3840,
        latent_channels=64,
    )


PUBLISHED: dict[str, Published] = {
    "flux-1-dev": _flux(guidance_embeds=True),
    "flux-1-schnell": _flux(guidance_embeds=False),
    "flux-2-klein-4b": _klein(is_distilled=True),
    "flux-2-klein-base-4b": _klein(is_distilled=False),
    "qwen-image": Published(
        transformer=(
            "QwenImageTransformer2DModel",
            {"num_layers": 60, "num_attention_heads": 24, "attention_head_dim": 128, "joint_attention_dim": 3584},
        ),
        vae=("AutoencoderKLQwenImage", {}),
        text_encoders=(("Qwen2_5_VLForConditionalGeneration", _QWEN25_VL_7B),),
        guided_above=1,
        hidden_width=3072,
        latent_channels=64,
    ),
    "sd3.5-medium": Published(
        transformer=(
            "SD3Transformer2DModel",
            {
                "num_layers": 24,
                "num_attention_heads": 24,
                "attention_head_dim": 64,
                "joint_attention_dim": 4096,
                "caption_projection_dim": 1536,
                "pooled_projection_dim": 2048,
                "pos_embed_max_size": 384,
                "dual_attention_layers": tuple(range(13)),
                "qk_norm": "rms_norm",
            },
        ),
        vae=("AutoencoderKL", _KL_16),
        text_encoders=(
            ("CLIPTextModelWithProjection", _CLIP_L),
            ("CLIPTextModelWithProjection", _CLIP_BIG_G),
            ("T5EncoderModel", _T5_XXL),
        ),
        guided_above=1,
        hidden_width=1536,
        latent_channels=64,
        text_length=256,
        extra_text=77,
    ),
    "z-image": _z_image(),
    "z-image-turbo": _z_image(),
}

# Bytes of the published files in bfloat16 (Stable Diffusion's in float16), as the pages of the repositories show them;
# headers are some thousandths of it. Text encoders in the order above.
FILE_BYTES: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "flux-1-dev": (23.8e9, 168e6, (246e6, 9.52e9)),
    "flux-1-schnell": (23.8e9, 168e6, (246e6, 9.52e9)),
    "flux-2-klein-4b": (7.75e9, 168e6, (8.04e9,)),
    "flux-2-klein-base-4b": (7.75e9, 168e6, (8.04e9,)),
    "qwen-image": (40.9e9, 254e6, (16.6e9,)),
    "sd3.5-medium": (4.94e9, 168e6, (247e6, 1.39e9, 9.52e9)),
    "z-image": (12.3e9, 168e6, (8.04e9,)),
    "z-image-turbo": (12.3e9, 168e6, (8.04e9,)),
}


def network(part: Part) -> nn.Module:
    """Returns a part of a pipeline on the meta device: its shapes, and no numbers."""
    name, config = part
    with torch.device("meta"):
        if hasattr(import_module("diffusers"), name):
            built: nn.Module = getattr(import_module("diffusers"), name)(**config)
            return built
        transformers = import_module("transformers")
        encoder: type[Any] = getattr(transformers, name)
        model: nn.Module = encoder(encoder.config_class(**config))
        return model


def architecture(model_id: str) -> Architecture:
    """Returns the architecture of a model of the catalogue."""
    entry = catalogue.MODELS[model_id]
    if entry.folder is not None:
        source = f"the files of the package, egrpo/{entry.path}"
        return of_loaded(family_of(str(entry.folder), None).load(str(entry.folder)), entry.folder, source, None)
    published = PUBLISHED[model_id]
    transformer, vae = network(published.transformer), network(published.vae)
    texts = [_shapes(network(part)) for part in published.text_encoders]
    adapter = _family(entry.family)
    parameters = _shapes(transformer)
    return Architecture(
        source=f"config.json of every part, huggingface.co/{entry.repo} at {entry.revision}",
        transformer=parameters,
        transformer_buffers=sum(t.numel() for name, t in transformer.state_dict().items() if name not in parameters),
        hidden_width=published.hidden_width,
        autoencoder_parameters=_count(_shapes(vae)),
        decoder_channels=decoder_channels(_shapes(vae)),
        decoder_flops_per_pixel=_decoder_flops_per_pixel(vae, published.vae_scale),
        text_parameters=sum(map(_count, texts)),
        text_width=text_width(texts),
        text_length=published.text_length,
        text_tokens=published.text_length + published.extra_text,
        encode_batch=adapter.encode_batch_size,
        native_size=published.native_size,
        pixels_per_token=published.vae_scale * published.positions_per_token,
        latent_channels=published.latent_channels,
        guided_above=published.guided_above,
        lora_targets=adapter.lora_target_sets,
    )


def of_loaded(model: ModelAdapter, folder: Path, source: str, guided_above: float | None) -> Architecture:
    """Returns the architecture of a model that is loaded from a folder, its images square."""
    texts = text_encoder_shapes(folder)
    size = model.height
    with torch.device("meta"):
        vae = type(model.vae).from_config(model.vae.config)
    return Architecture(
        source=source,
        transformer=_shapes(model.transformer),
        transformer_buffers=0,
        hidden_width=model.hidden_width,
        autoencoder_parameters=_count(_shapes(model.vae)),
        decoder_channels=decoder_channels(_shapes(model.vae)),
        decoder_flops_per_pixel=_decoder_flops_per_pixel(vae, 8),
        text_parameters=sum(map(_count, texts)),
        text_width=text_width(texts),
        text_length=model.max_sequence_length,
        text_tokens=model.num_text_tokens,
        encode_batch=model.encode_batch_size,
        native_size=size,
        pixels_per_token=round(size / model.num_tokens**0.5),
        latent_channels=model.initial_latents([0]).numel() // model.num_tokens,
        guided_above=guided_above,
        lora_targets=model.lora_target_sets,
    )


def _family(family: str) -> type[ModelAdapter]:
    adapters: list[type[ModelAdapter]] = [getattr(import_module(module), name) for module, name in FAMILIES.values()]
    return next(adapter for adapter in adapters if adapter.family == family)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in module.named_parameters()}


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def _decoder_flops_per_pixel(vae: Any, scale: int) -> int:
    channels = vae.config.get("latent_channels") or vae.config["z_dim"]
    rows = _DECODED // scale
    frames = () if "latent_channels" in vae.config else (1,)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.decode(torch.zeros(1, channels, *frames, rows, rows, device="meta"))
    return int(counter.get_total_flops()) // _DECODED**2


def document() -> str:
    """Returns the text of `architectures.json`."""
    models = {model_id: architecture(model_id).to_json() for model_id in sorted(catalogue.MODELS)}
    text = json.dumps(models, indent=1, sort_keys=True, default=dict)
    on_one_line = re.sub(r"\[\s+(\d[\d,\s]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    return f"{on_one_line}\n"


if __name__ == "__main__":
    FILE.write_text(document())
