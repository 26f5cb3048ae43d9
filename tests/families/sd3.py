"""Stable Diffusion 3: as 3.5-medium (dual attention, QK norm, fixed shift), and without T5 but with dynamic shift."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from families import Family

NUM_TOKENS = 12


def build_random_sd3(folder: Path, *, with_t5: bool = True, dynamic_shift: bool = False) -> Path:
    """Writes a random pipeline: 32x32 pixels, 4 image tokens, 12 CLIP and 12 T5 tokens."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    from egrpo.tiny.tokenizers import make_clip_tokenizer, make_t5_tokenizer

    torch.manual_seed(0)
    clip_tokenizer, t5_tokenizer = make_clip_tokenizer(), make_t5_tokenizer()
    clip_tokenizer.model_max_length = t5_tokenizer.model_max_length = NUM_TOKENS

    def clip(width: int) -> CLIPTextModelWithProjection:
        config = CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=NUM_TOKENS,
            projection_dim=width,
            bos_token_id=0,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.eos_token_id,
        )
        return CLIPTextModelWithProjection(config)

    t5 = T5Config(vocab_size=len(t5_tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformer = SD3Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=24,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5305,
        shift_factor=0.0609,
    )
    shifting = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64} if dynamic_shift else {}
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, **shifting),
        vae=vae,
        text_encoder=clip(8),
        tokenizer=clip_tokenizer,
        text_encoder_2=clip(16),
        tokenizer_2=clip_tokenizer,
        text_encoder_3=T5EncoderModel(t5) if with_t5 else None,
        tokenizer_3=t5_tokenizer if with_t5 else None,
    ).save_pretrained(folder)
    return folder


FAMILIES = (
    Family(
        name="sd3",
        family="sd3",
        pipeline="StableDiffusion3Pipeline",
        build=build_random_sd3,
        guidances=(1.0, 4.5),
        dynamic_shift=False,
        arguments={"max_sequence_length": NUM_TOKENS},
    ),
    Family(
        name="sd3-without-t5",
        family="sd3",
        pipeline="StableDiffusion3Pipeline",
        build=partial(build_random_sd3, with_t5=False, dynamic_shift=True),
        guidances=(0.0, 4.5),
    ),
)
