"""The `compressibility` and `incompressibility` rewards: how many bytes a picture needs as JPEG.

Source: DDPO, arXiv 2305.13301, section 5.1, where the reward is the size in kB of the JPEG at quality 95, negated or
not. The size is put in relation to the number of pixels and brought into (0, 1), so that the reward means the same at
every resolution and can be weighed against others:

    bits = 8 * bytes / (height * width)        compressibility = c / (c + bits)        incompressibility = 1 - that

with c = 2 bits per pixel, about what a photograph needs at quality 95: it scores one half. Strictly monotone in the
size, never saturated. Needs no weights. The bytes depend on the version of libjpeg inside Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from egrpo.rewards import RewardBatch

HALF_SCORE_BITS = 2.0


class JpegReward:
    """Scores images by their JPEG size; prompts play no part, and every image passes."""

    range = (0.0, 1.0)

    def __init__(self, *, compressible: bool, quality: int = 95) -> None:
        """Prepares the reward.

        Args:
            compressible: whether small files score high, or large ones.
            quality: JPEG quality, 1 to 100.
        """
        self.name = "compressibility" if compressible else "incompressibility"
        self._compressible = compressible
        self._quality = quality

    def __call__(self, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
        """Returns scores in (0, 1), and the bits per pixel as a metric."""
        pixels_BHWC = (images_BCHW.detach().permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)
        bits = np.array([8 * self._num_bytes(pixels) / pixels[..., 0].size for pixels in pixels_BHWC])
        scores = HALF_SCORE_BITS / (HALF_SCORE_BITS + bits)
        return RewardBatch(
            scores if self._compressible else 1 - scores, np.ones(len(bits), dtype=bool), {"bits_per_pixel": bits}
        )

    def _num_bytes(self, pixels_HWC: np.ndarray) -> int:
        file = io.BytesIO()
        Image.fromarray(pixels_HWC).save(file, "JPEG", quality=self._quality)
        return file.tell()
