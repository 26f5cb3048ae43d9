"""FLUX.2-klein: the base model under classifier-free guidance, and the distilled one, which ignores guidance."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from families import PROMPTS, Family
from families.qwen_tokenizer import make_qwen_tokenizer

NUM_TOKENS = 24


def build_random_flux2_klein(folder: Path, *, is_distilled: bool) -> Path:
    """Writes a random pipeline of about 100 000 parameters: 32x32 pixels, 4 image tokens, 24 text tokens."""
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    tokenizer = make_qwen_tokenizer(NUM_TOKENS, *PROMPTS)
    qwen = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=28,  # the pipeline takes the hidden states behind layers 9, 18 and 27
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=NUM_TOKENS,
        initializer_range=0.5,  # weights so small as the default would make all prompts alike
    )
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    # What training leaves there is not zero and one.
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    Flux2KleinPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae,
        Qwen3ForCausalLM(qwen),
        tokenizer,
        transformer,
        is_distilled=is_distilled,
    ).save_pretrained(folder)
    return folder


FAMILIES = (
    Family(
        name="flux2-klein-base",
        family="flux2",
        pipeline="Flux2KleinPipeline",
        build=partial(build_random_flux2_klein, is_distilled=False),
        guidances=(1.0, 4.0),
        arguments={"max_sequence_length": NUM_TOKENS},
    ),
    Family(
        name="flux2-klein-distilled",
        family="flux2",
        pipeline="Flux2KleinPipeline",
        build=partial(build_random_flux2_klein, is_distilled=True),
        guidances=(1.0, 4.0),
        guidance_matters=False,
        arguments={"max_sequence_length": NUM_TOKENS},
    ),
)
