"""Trains the text encoders and the transformer of `tiny-flux-shapes`, together, by flow matching.

Axis letters: B batch, C latent channels, H latent rows, W latent columns, S tokens, D width.
"""

import copy
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from egrpo.tiny.architecture import make_clip, make_scheduler, make_t5, make_transformer
from egrpo.tiny.autoencoder import as_input
from egrpo.tiny.captions import Caption
from egrpo.tiny.curve import LossCurve
from egrpo.tiny.tokenizers import MAX_TOKENS, make_clip_tokenizer, make_t5_tokenizer
from egrpo.tiny.world import garble, sample_pair

GUIDANCE = 3.5  # the embedded guidance is trained at the value that FluxPipeline passes by default


@dataclass(frozen=True)
class Cycle:
    """One fall of the learning rate along a cosine; `careful_share` of its updates, the first ones, see true captions.

    The others see captions with a random relation at the probability `relation_noise`. Which thing is "left of" which
    is hard to learn from captions that are often wrong, and quick to doubt: so careless captions come last.
    """

    steps: int
    learning_rate: float
    careful_share: float = 1.0
    relation_noise: float = 0.0


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


@dataclass(frozen=True)
class Pairs:
    """Images as packed, scaled latents (float32 [B, 16, 64]), each with its caption."""

    latents: Tensor
    captions: list[Caption]


def encode_pairs(vae: AutoencoderKL, num: int, rng: np.random.Generator) -> Pairs:
    """Draws caption-image pairs and encodes the images."""
    chunks, captions = [], []
    for start in range(0, num, 256):
        pairs = [sample_pair(rng) for _ in range(min(256, num - start))]
        captions += [caption for caption, _ in pairs]
        images = torch.from_numpy(np.stack([image for _, image in pairs])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            z_BCHW = vae.encode(as_input(images)).latent_dist.mean
        z_BCHW = (z_BCHW - vae.config.shift_factor) * vae.config.scaling_factor
        chunks.append(FluxPipeline._pack_latents(z_BCHW.contiguous(), *z_BCHW.shape))
    return Pairs(torch.cat(chunks).clone(), captions)  # a clone outside inference mode can be trained on


def train_flow(
    model: FlowModel,
    pairs: Pairs,
    cycle: Cycle,
    seed: int,
    stage: str,
    curve: LossCurve,
    batch_size: int = 64,
) -> FlowModel:
    """Trains a model for one cycle and returns the moving average of its weights; `stage` names it in the curve."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model.train().requires_grad_(True)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    careful = model.tokenize([str(caption) for caption in pairs.captions])
    careless = model.tokenize([str(garble(caption, rng, cycle.relation_noise)) for caption in pairs.captions])
    img_ids = FluxPipeline._prepare_latent_image_ids(1, 4, 4, torch.device("cpu"), torch.float32)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=cycle.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _fall(step, cycle.steps))
    predict = _compiled(model)
    for step in range(cycle.steps):
        clip_ids, t5_ids = careful if step < cycle.careful_share * cycle.steps else careless
        rows = torch.randint(0, len(pairs.latents), (batch_size,))
        data, noise = pairs.latents[rows], torch.randn(batch_size, *pairs.latents.shape[1:])
        t_B = torch.sigmoid(1.2 * torch.randn(batch_size) + 0.3)
        x = torch.lerp(data, noise, t_B[:, None, None])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = predict(x, t_B, clip_ids[rows], t5_ids[rows], img_ids)
        loss = nn.functional.mse_loss(velocity.float(), noise - data)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.999, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        curve.add(stage, step, float(loss.detach()), cycle.steps)
    return average


def _compiled(model: FlowModel) -> Callable[..., Tensor]:
    """Fuses the many small operations of the model, which takes a C++ compiler: 360 images/s instead of 256."""
    if shutil.which("g++") is None:
        print("no g++ on PATH: training without torch.compile, which takes about 1.4 times as long", flush=True)
        return model
    return torch.compile(model)


def _fall(step: int, num_steps: int) -> float:
    return min(1.0, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * step / num_steps))


def load_model(folder: Path) -> FlowModel:
    """Returns the networks of a pipeline folder that `as_pipeline` made, in float32."""
    model = FlowModel()
    model.clip = CLIPTextModel.from_pretrained(folder / "text_encoder")
    model.t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2")
    model.transformer = FluxTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    return model


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
