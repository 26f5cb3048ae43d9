"""Trains the text encoders and the transformer of `tiny-flux-shapes`, together, by flow matching.

Axis letters: B batch, C latent channels, H latent rows, W latent columns, S tokens, D width.
"""

import copy
import math

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from egrpo.tiny.architecture import make_clip, make_scheduler, make_t5, make_transformer
from egrpo.tiny.autoencoder import as_input
from egrpo.tiny.curve import LossCurve
from egrpo.tiny.tokenizers import MAX_TOKENS, make_clip_tokenizer, make_t5_tokenizer
from egrpo.tiny.world import sample_pair

GUIDANCE = 3.5  # the embedded guidance is trained at the value that FluxPipeline passes by default


class FlowModel(nn.Module):
    """The three trained networks and their tokenizers, called as `FluxPipeline` calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer: CLIPTokenizer = make_clip_tokenizer()
        self.tokenizer_2: T5TokenizerFast = make_t5_tokenizer()
        self.clip: CLIPTextModel = make_clip(len(self.tokenizer), self.tokenizer.eos_token_id)
        self.t5: T5EncoderModel = make_t5(len(self.tokenizer_2))
        self.transformer: FluxTransformer2DModel = make_transformer()

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Returns the padded token ids of both tokenizers: int64 [B, S] each."""
        settings = {"padding": "max_length", "max_length": MAX_TOKENS, "truncation": True, "return_tensors": "pt"}
        return self.tokenizer(captions, **settings).input_ids, self.tokenizer_2(captions, **settings).input_ids

    def forward(self, x_BSD: Tensor, t_B: Tensor, clip_ids_BS: Tensor, t5_ids_BS: Tensor, img_ids: Tensor) -> Tensor:
        """Returns the velocity (noise - data) of packed latents at flow time t: [B, S, D]."""
        velocity: Tensor = self.transformer(
            hidden_states=x_BSD,
            timestep=t_B,
            guidance=torch.full_like(t_B, GUIDANCE),
            pooled_projections=self.clip(clip_ids_BS).pooler_output,
            encoder_hidden_states=self.t5(t5_ids_BS).last_hidden_state,
            txt_ids=torch.zeros(MAX_TOKENS, 3),
            img_ids=img_ids,
            return_dict=False,
        )[0]
        return velocity


def encode_pairs(vae: AutoencoderKL, num: int, rng: np.random.Generator) -> tuple[Tensor, list[str]]:
    """Draws caption-image pairs and encodes the images: packed, scaled latents float32 [B, 16, 64], and captions."""
    chunks, captions = [], []
    for start in range(0, num, 256):
        pairs = [sample_pair(rng) for _ in range(min(256, num - start))]
        captions += [caption for caption, _ in pairs]
        images = torch.from_numpy(np.stack([image for _, image in pairs])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            z_BCHW = vae.encode(as_input(images)).latent_dist.mean
        z_BCHW = (z_BCHW - vae.config.shift_factor) * vae.config.scaling_factor
        chunks.append(FluxPipeline._pack_latents(z_BCHW.contiguous(), *z_BCHW.shape))
    return torch.cat(chunks).clone(), captions


def train_flow(
    vae: AutoencoderKL, seed: int, num_pairs: int, num_steps: int, curve: LossCurve, batch_size: int = 64
) -> FlowModel:
    """Trains from nothing on freshly drawn pairs and returns the moving average of the weights."""
    torch.manual_seed(seed)
    data, captions = encode_pairs(vae, num_pairs, np.random.default_rng(seed))
    model = FlowModel()
    average = copy.deepcopy(model).requires_grad_(False)
    clip_ids, t5_ids = model.tokenize(captions)
    img_ids = FluxPipeline._prepare_latent_image_ids(1, 4, 4, torch.device("cpu"), torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, num_steps))
    for step in range(num_steps):
        rows = torch.randint(0, len(data), (batch_size,))
        noise = torch.randn(batch_size, *data.shape[1:])
        t_B = torch.sigmoid(1.2 * torch.randn(batch_size) + 0.3)
        x = torch.lerp(data[rows], noise, t_B[:, None, None])
        velocity = model(x, t_B, clip_ids[rows], t5_ids[rows], img_ids)
        loss = nn.functional.mse_loss(velocity, noise - data[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.999, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        curve.add("flow", step, float(loss.detach()), num_steps)
    return average.eval()


def _learning_rate(step: int, num_steps: int) -> float:
    return min(1.0, step / 200) * (0.5 + 0.5 * math.cos(math.pi * step / num_steps))


def as_pipeline(model: FlowModel, vae: AutoencoderKL) -> FluxPipeline:
    """Returns the stock pipeline of the trained parts."""
    return FluxPipeline(
        scheduler=make_scheduler(),
        vae=vae.to(memory_format=torch.contiguous_format),
        text_encoder=model.clip,
        tokenizer=model.tokenizer,
        text_encoder_2=model.t5,
        tokenizer_2=model.tokenizer_2,
        transformer=model.transformer,
    )
