"""The `diversity` reward: how far an image is from the others of its group. Needs no weights.

Every image is averaged over a grid of n x n cells, so that noise and small shifts do not count, only layout and colour.
The distance of two images is the root mean square over cells and channels, and an image scores its mean distance to the
other members of its group:

    d(x, y) = sqrt(mean over cells and channels of (x - y)^2)        score_g = sum over h != g of d(x_g, x_h) / (G - 1)

in [0, 1]: 0 where the whole group is one picture, 1 between black and white. The remedy against a policy that draws one
picture only; alone it rewards whatever differs, so it is combined with a reward that looks at the prompt. Ours; in the
manner of the mean pairwise distances by which image sets are compared.
Axis letters: B batch, G group member, n cells a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from egrpo.rewards import FloatArray, RewardBatch


class DiversityReward:
    """Scores every image by its mean distance to the others of its group; every image passes."""

    name = "diversity"
    range = (0.0, 1.0)

    def __init__(self, grid: int = 16) -> None:
        self._grid = grid

    def score_groups(self, images_BCHW: Tensor, prompts: Sequence[str], group_B: Sequence[int]) -> RewardBatch:
        """Returns scores in [0, 1]; an image that is alone in its group has no other and scores 0."""
        cells = adaptive_avg_pool2d(images_BCHW.detach().float(), self._grid).flatten(1).cpu().double().numpy()
        groups, scores = np.asarray(group_B), np.zeros(len(prompts))
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            scores[members] = _mean_distances(cells[members])
        return RewardBatch(scores, np.ones(len(scores), dtype=bool))


def _mean_distances(cells_GN: FloatArray) -> FloatArray:
    distances = np.stack([np.sqrt(np.square(cells_GN - cells).mean(axis=1)) for cells in cells_GN])
    found: FloatArray = distances.sum(axis=1) / max(1, len(cells_GN) - 1)
    return found
