"""Lumina 2: a fixed shift as it is deployed, and the dynamic one that its pipeline also takes."""

from __future__ import annotations

from pathlib import Path

from families import Family
from families.gemma_tokenizer import make_gemma_tokenizer

NUM_TOKENS = 220  # the pipeline's own system prompt is 154 letters long


def build_random_lumina2(folder: Path, *, dynamic_shift: bool = False) -> Path:
    """Writes a random pipeline of about 100 000 parameters: 32x32 pixels, 4 image tokens, 220 text tokens."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(0)
    tokenizer = make_gemma_tokenizer(NUM_TOKENS)
    gemma = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,  # the pipeline takes the hidden states before the last
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=NUM_TOKENS,
        sliding_window=NUM_TOKENS,
        initializer_range=0.5,  # weights so small as the default would make all prompts alike
    )
    transformer = Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(NUM_TOKENS + 1, 16, 16),
        cap_feat_dim=16,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=1.0 if dynamic_shift else 6.0, use_dynamic_shifting=dynamic_shift, base_image_seq_len=2
    )
    Lumina2Pipeline(transformer, scheduler, vae, Gemma2Model(gemma), tokenizer).save_pretrained(folder)
    return folder


FAMILIES = (
    Family(
        name="lumina2",
        family="lumina2",
        pipeline="Lumina2Pipeline",
        build=build_random_lumina2,
        guidances=(1.0, 4.0),
        dynamic_shift=False,
        arguments={"max_sequence_length": NUM_TOKENS},
    ),
)
