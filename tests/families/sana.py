"""Sana: as it is deployed, with a DPM-Solver++ scheduler, whose stock pipeline is compared under Euler steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from families import Family, load_stock
from families.gemma_tokenizer import make_gemma_tokenizer

NUM_TOKENS = 48
SHIFT = 3.0


def build_random_sana(folder: Path, **scheduler_settings: Any) -> Path:
    """Writes a random pipeline of about 100 000 parameters: 32x32 pixels, 16 image tokens, 48 text tokens."""
    import torch
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(0)
    tokenizer = make_gemma_tokenizer(NUM_TOKENS)
    gemma = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=2048,
        initializer_range=0.5,  # weights so small as the default would make all prompts alike
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=16,
        sample_size=4,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), (5,)),
        decoder_qkv_multiscales=((), (), (), (5,)),
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        scaling_factor=0.41407,
    )
    settings = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": SHIFT}
    scheduler = DPMSolverMultistepScheduler(**settings | scheduler_settings)
    SanaPipeline(tokenizer, Gemma2Model(gemma), vae, transformer, scheduler).save_pretrained(folder)
    return folder


def load_stock_with_euler_steps(folder: Path) -> Any:
    """Returns the stock pipeline with diffusers' Euler scheduler of the same shift in the place of DPM-Solver++."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipeline = load_stock(folder)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    return pipeline


def uniform_times(steps: int) -> dict[str, Any]:
    """Returns the times that the stock pipeline is to shift; left alone, its Euler scheduler would shift twice."""
    import numpy as np

    return {"sigmas": np.linspace(1.0, 1 / steps, steps).tolist()}


FAMILIES = (
    Family(
        name="sana",
        family="sana",
        pipeline="SanaPipeline",
        build=build_random_sana,
        guidances=(1.0, 4.5),
        other_size=(64, 32),  # the stock pipeline takes multiples of 32 only
        dynamic_shift=False,
        arguments={"max_sequence_length": NUM_TOKENS, "use_resolution_binning": False},
        arguments_of_steps=uniform_times,
        load_stock=load_stock_with_euler_steps,
    ),
)
