"""How many floating-point operations a run will take, from the shapes of its weights and the numbers of its spec.

Counted are the linear layers and the attention of the transformer's blocks and the decoder: a multiplication and an
addition are two operations. Text encoders, rewards, the adapter's own products and everything per element are left out;
a test holds the forward pass against torch's own counter. Free of torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from egrpo.memory import LATENT_BLOCK, TEXT_BLOCK, Shapes, block_layers

_QUERY = re.compile(r"\.(attn\d?|attention)\.to_q(kv_mlp_proj)?$")
_OF_LATENTS_ALONE = re.compile(r"\.attn2\.")


@dataclass(frozen=True)
class PassFlops:
    """Operations of one image's forward pass: in linear layers, and in attention, which has no weights."""

    linear: int
    attention: int

    @property
    def forward(self) -> int:
        """Without gradients."""
        return self.linear + self.attention

    def update(self, *, trains_base: bool, checkpoints_gradients: bool) -> int:
        """Forward and backward.

        The backward pass takes one product for the gradient of a layer's input and, where its own weight is trained,
        one more for that of the weight; attention takes two for each of its own. Under gradient checkpointing the
        forward pass is made twice.
        """
        forward = self.forward * (2 if checkpoints_gradients else 1)
        return forward + self.linear * (2 if trains_base else 1) + 2 * self.attention


def pass_flops(transformer: Shapes, latent_tokens: int, text_tokens: int, hidden_width: int) -> PassFlops:
    """Returns the operations of one image's forward pass."""
    linear, attention = 0, 0
    for block, layers in block_layers(transformer, latent_tokens, text_tokens).items():
        for layer in layers:
            linear += 2 * layer.tokens * layer.wide_out * layer.wide_in
            if _QUERY.search(layer.name):
                of_latents = LATENT_BLOCK.search(block) or _OF_LATENTS_ALONE.search(layer.name)
                of_text = TEXT_BLOCK.search(block)
                tokens = (0 if of_text else latent_tokens) + (0 if of_latents else text_tokens)
                attention += 4 * tokens**2 * hidden_width
    return PassFlops(linear, attention)
