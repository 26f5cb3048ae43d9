"""FLUX.1: dev embeds guidance and shifts its schedule by the resolution; schnell does neither."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from families import Family

NUM_TOKENS = 12


def build_random_flux(folder: Path, *, guidance_embeds: bool = True, seed: int = 0) -> Path:
    """Writes a random pipeline of about 100 000 parameters: 32x32 pixels, 4 image tokens, 12 text tokens."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    from egrpo.tiny.tokenizers import make_clip_tokenizer, make_t5_tokenizer

    torch.manual_seed(seed)
    clip_tokenizer, t5_tokenizer = make_clip_tokenizer(), make_t5_tokenizer()
    clip_tokenizer.model_max_length = t5_tokenizer.model_max_length = NUM_TOKENS
    clip = CLIPTextConfig(
        vocab_size=215,  # room for the words, and the same random weights whatever their number
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=NUM_TOKENS,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=clip_tokenizer.eos_token_id,
        pad_token_id=clip_tokenizer.eos_token_id,
    )
    t5 = T5Config(vocab_size=len(t5_tokenizer), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
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
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=guidance_embeds, shift=1.0, base_image_seq_len=4, max_image_seq_len=64
    )
    FluxPipeline(
        scheduler, vae, CLIPTextModel(clip), clip_tokenizer, T5EncoderModel(t5), t5_tokenizer, transformer
    ).save_pretrained(folder)
    return folder


FAMILIES = (
    Family(
        name="flux-dev",
        family="flux",
        pipeline="FluxPipeline",
        build=build_random_flux,
        guidances=(1.0, 3.5),
        arguments={"max_sequence_length": NUM_TOKENS},
    ),
    Family(
        name="flux-schnell",
        family="flux",
        pipeline="FluxPipeline",
        build=partial(build_random_flux, guidance_embeds=False),
        guidances=(0.0, 3.5),
        guidance_matters=False,
        dynamic_shift=False,
        arguments={"max_sequence_length": NUM_TOKENS},
    ),
)
