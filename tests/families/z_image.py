"""Z-Image: base with classifier-free guidance and Turbo without, dynamic and fixed shift."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from families import Family
from families.qwen_tokenizer import make_qwen_tokenizer

NUM_TOKENS = 64


def build_random_z_image(folder: Path, *, dynamic_shift: bool = False) -> Path:
    """Writes a random pipeline: 32x32 pixels are 4 image tokens; at most 64 text tokens.

    The prompts are spelled in letters, so that one of them takes one block of 32 text tokens, which is what the network
    pads to, and another takes two.
    """
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        ZImagePipeline,
        ZImageTransformer2DModel,
    )

    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[128, 16, 16],
    )
    _fill_pad_tokens(transformer)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=dynamic_shift, shift=3.0, base_image_seq_len=4, max_image_seq_len=64
    )
    text_encoder, tokenizer = _text_encoder_and_tokenizer()
    ZImagePipeline(scheduler, vae, text_encoder, tokenizer, transformer).save_pretrained(folder)
    return folder


def _fill_pad_tokens(transformer: Any) -> None:
    """Trained ones are not zero, and zeros would hide a mistake in the padding."""
    import torch

    with torch.no_grad():
        transformer.x_pad_token.normal_()
        transformer.cap_pad_token.normal_()


def _text_encoder_and_tokenizer() -> tuple[Any, Any]:
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = make_qwen_tokenizer(NUM_TOKENS)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return Qwen3Model(config), tokenizer


FAMILIES = (
    Family(
        name="z-image",
        family="z_image",
        pipeline="ZImagePipeline",
        build=partial(build_random_z_image, dynamic_shift=True),
        guidances=(0.0, 4.0),
        arguments={"max_sequence_length": NUM_TOKENS},
    ),
    Family(
        name="z-image-turbo",
        family="z_image",
        pipeline="ZImagePipeline",
        build=build_random_z_image,
        # 1 is guidance too: here only 0 is none, which is what Turbo is trained and drawn with.
        guidances=(1.0, 0.0),
        dynamic_shift=False,
        arguments={"max_sequence_length": NUM_TOKENS},
    ),
)
