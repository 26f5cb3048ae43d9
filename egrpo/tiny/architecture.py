"""The parts of `tiny-flux-shapes`, untrained: stock diffusers and transformers classes in FLUX.1-dev's layout.

64x64 pixels become 8x8x16 latents and 16 image tokens of width 64; a caption is 10 text tokens. The transformer has
FLUX's two kinds of block, its embedded guidance, rotary axes and pooled projection, and its scheduler FLUX's dynamic
shift, so nothing in the adapter knows that the model is small.
"""

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from egrpo.tiny.tokenizers import MAX_TOKENS

TEXT_WIDTH, POOLED_WIDTH = 96, 64


def make_vae() -> AutoencoderKL:
    """Returns an untrained autoencoder: 8x downsampling, 16 latent channels, no attention, so any size decodes."""
    return AutoencoderKL(
        block_out_channels=(16, 24, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def make_transformer() -> FluxTransformer2DModel:
    """Returns an untrained FLUX transformer of 4.7 million parameters."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=48,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(16, 16, 16),
    )


def make_clip(vocab_size: int, eos_token_id: int) -> CLIPTextModel:
    """Returns an untrained CLIP text model, the source of the pooled projection."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=POOLED_WIDTH,
            intermediate_size=2 * POOLED_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=POOLED_WIDTH,
            bos_token_id=0,
            eos_token_id=eos_token_id,
            pad_token_id=eos_token_id,
        )
    )


def make_t5(vocab_size: int) -> T5EncoderModel:
    """Returns an untrained T5 encoder, the source of the text tokens."""
    return T5EncoderModel(
        T5Config(
            vocab_size=vocab_size,
            d_model=TEXT_WIDTH,
            d_kv=24,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=16,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
        )
    )


def make_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Returns the scheduler with the settings published with FLUX.1-dev."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
