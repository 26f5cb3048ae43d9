"""Qwen-Image: classifier-free guidance with the pipeline's rescaling, dynamic shift that ends before 0, a video VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from families import PROMPTS, Family
from families.qwen_tokenizer import make_qwen_tokenizer

NUM_TOKENS = 20


def build_random_qwen_image(folder: Path, *, guidance_embeds: bool = False) -> Path:
    """Writes a random pipeline: 32x32 pixels are 4 image tokens; at most 20 text tokens after the system prompt."""
    import torch
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=guidance_embeds,
    )
    vae = AutoencoderKLQwenImage(base_dim=4, z_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1)
    # As Qwen/Qwen-Image has it, for smaller images.
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_image_seq_len=4,
        max_image_seq_len=64,
        base_shift=0.5,
        max_shift=0.9,
        shift_terminal=0.02,
    )
    text_encoder, tokenizer = _text_encoder_and_tokenizer()
    QwenImagePipeline(scheduler, vae, text_encoder, tokenizer, transformer).save_pretrained(folder)
    return folder


def _text_encoder_and_tokenizer() -> tuple[Any, Any]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = make_qwen_tokenizer(NUM_TOKENS, _SYSTEM_PROMPT, *PROMPTS)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
    )
    return Qwen2_5_VLForConditionalGeneration(config), tokenizer


# The words of the stock pipeline's template, so that it has the 34 tokens before the prompt that the pipeline cuts off.
_SYSTEM_PROMPT = (
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
    "of the objects and background:"
)

FAMILIES = (
    Family(
        name="qwen-image",
        family="qwen_image",
        pipeline="QwenImagePipeline",
        build=build_random_qwen_image,
        guidances=(1.0, 4.0),
        guidance_argument="true_cfg_scale",
        arguments={"negative_prompt": " ", "max_sequence_length": NUM_TOKENS},
    ),
)
