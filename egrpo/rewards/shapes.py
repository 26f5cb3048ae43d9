"""The `shapes` reward: verifies from pixels that a picture of the shapes world shows what its caption says.

In the manner of GenEval (arXiv 2310.11513), with connected components in place of a detector: for every thing of the
caption, is something there, has it the colour, has it the shape; does the relation hold; is there nothing else. Every
check gives a value in [0, 1] with a margin around the decision, and a check that fails halves the score:

    score = prod over checks of (1 + check) / 2

so one wrong attribute gives at most 0.5 and a wrong picture next to nothing, while almost right is more than wrong.
Axis letters: B batch, H rows, W columns, S shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from torch import Tensor

from egrpo.rewards import RewardBatch
from egrpo.tiny.captions import COLOURS, SHAPES, Caption, Thing, parse_caption
from egrpo.tiny.world import BACKGROUND, IMAGE_SIZE, PALETTE, signed_distance

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FOREGROUND = 0.25  # distance from the background, in the channel that differs most, where a thing begins
MIN_AREA = 24  # pixels at 64x64; what is smaller is a speck
MAX_BLOBS = 4  # of the largest blobs only; the others still count as extra
COLOUR_MARGIN = 0.15  # RGB distance by which the right colour must be the nearest to count in full
SHAPE_MARGIN = 0.03  # intersection over union, likewise
RELATION_MARGIN = 6.0  # pixels at 64x64 by which the centres must be apart, likewise
GRID = 32  # masks are compared on this many cells a side


@dataclass(frozen=True)
class Blob:
    """One connected foreground component: its centre in pixels of a 64-pixel image, and how well it fits."""

    x: float
    y: float
    colour_distances: FloatArray  # [len(COLOURS)], RGB
    shape_overlaps: FloatArray  # [S], intersection over union with each shape scaled to the same box


@dataclass(frozen=True)
class Verdict:
    """The checks of one image, each in [0, 1], and whether all of them hold strictly."""

    present: float
    colour: float
    shape: float
    relation: float
    score: float
    passed: bool


class ShapesReward:
    """Scores images of the shapes world in [0, 1]; deterministic, and per image."""

    name = "shapes"
    range = (0.0, 1.0)

    def __call__(self, images_BCHW: Tensor, prompts: Sequence[str]) -> RewardBatch:
        """Returns scores, strict pass flags and the mean of each kind of check.

        Args:
            images_BCHW: float32 in [0, 1], square, any size that is a multiple of 64 pixels.
            prompts: one caption of the shapes world for each image.

        Raises:
            ValueError: a prompt is not a caption of the shapes world, or the numbers of images and prompts differ.
        """
        images = images_BCHW.detach().permute(0, 2, 3, 1).cpu().double().numpy()
        pairs = zip(find_blobs(images), prompts, strict=True)
        verdicts = [judge(blobs, parse_caption(prompt)) for blobs, prompt in pairs]
        kinds = ("present", "colour", "shape", "relation")
        return RewardBatch(
            scores=np.array([verdict.score for verdict in verdicts], dtype=np.float64),
            passed=np.array([verdict.passed for verdict in verdicts], dtype=np.bool_),
            metrics={kind: np.array([getattr(v, kind) for v in verdicts], dtype=np.float64) for kind in kinds},
        )


def find_blobs(images_BHWC: FloatArray) -> list[list[Blob]]:
    """Finds the foreground components of each image, largest first; specks are left out."""
    scale = images_BHWC.shape[1] / IMAGE_SIZE
    contrast_BHW = np.abs(images_BHWC - np.array(BACKGROUND)).max(-1)
    within_image = np.zeros((3, 3, 3), dtype=bool)
    within_image[1] = ndimage.generate_binary_structure(2, 1)
    labels_BHW, count = ndimage.label(contrast_BHW > FOREGROUND, within_image)
    areas = np.bincount(labels_BHW.ravel(), minlength=count + 1)
    found: list[list[tuple[int, Blob]]] = [[] for _ in images_BHWC]
    for label, box in enumerate(ndimage.find_objects(labels_BHW), start=1):
        if areas[label] >= MIN_AREA * scale**2:
            index = box[0].start
            blob = _measure(
                labels_BHW[box][0] == label, contrast_BHW[box][0], images_BHWC[index][box[1:]], box[1:], scale
            )
            found[index].append((int(areas[label]), blob))
    return [[blob for _, blob in sorted(blobs, key=lambda item: -item[0])] for blobs in found]


def _measure(mask: BoolArray, contrast: FloatArray, pixels: FloatArray, box: tuple[slice, slice], scale: float) -> Blob:
    # The outline lies where the contrast falls to half of the inside's: there a blur does not move it.
    mask = mask & (contrast > 0.5 * np.percentile(contrast[mask], 80))
    rows, columns = np.nonzero(mask)
    x, y = float(columns.mean()), float(rows.mean())
    return Blob(
        x=(x + box[1].start + 0.5) / scale,
        y=(y + box[0].start + 0.5) / scale,
        colour_distances=np.sqrt(((PALETTE - np.median(pixels[rows, columns], axis=0)) ** 2).sum(1)),
        shape_overlaps=_overlaps(_normalise(mask, x, y, len(rows))),
    )


def _normalise(mask: BoolArray, x: float, y: float, area: int) -> BoolArray:
    """Samples a mask on a grid around its centre, of a width that makes all areas alike: [GRID, GRID]."""
    offsets = ((np.arange(GRID) + 0.5) * 2 / GRID - 1) * area**0.5
    rows, columns = np.rint(y + offsets).astype(int), np.rint(x + offsets).astype(int)
    within = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
    sampled: BoolArray = mask[np.ix_(rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1))] & within
    return sampled


def _templates() -> BoolArray:
    """Returns each shape's mask on the common grid: [S, GRID, GRID]."""
    y, x = np.mgrid[-150:151, -150:151] / 100.0
    masks = []
    for shape in SHAPES:
        inside = signed_distance(shape, x, y, 1.0) <= 0
        rows, columns = np.nonzero(inside)
        masks.append(_normalise(inside, float(columns.mean()), float(rows.mean()), len(rows)))
    return np.stack(masks)


TEMPLATES = _templates()


def _overlaps(grid: BoolArray) -> FloatArray:
    shared = (TEMPLATES & grid).sum((1, 2))
    overlaps: FloatArray = shared / (TEMPLATES.sum((1, 2)) + grid.sum() - shared)
    return overlaps


def judge(blobs: Sequence[Blob], caption: Caption) -> Verdict:
    """Checks the blobs of one image against a caption, under the assignment of blobs to things that fits best."""
    things = caption.things
    padded = [*blobs[:MAX_BLOBS], *[None] * len(things)]
    candidates = [[_fit(blob, thing) for blob in padded] for thing in things]
    best = max(
        permutations(range(len(padded)), len(things)),
        key=lambda chosen: sum(sum(candidates[n][index]) for n, index in enumerate(chosen)),
    )
    fits = np.array([candidates[n][index] for n, index in enumerate(best)])
    chosen = [padded[index] for index in best]
    relation = _relation_holds(chosen[0], chosen[1], str(caption.relation)) if len(things) == 2 else 1.0
    num_extra = max(0, len(blobs) - len(things))
    score = float(np.prod((1 + fits) / 2)) * (1 + relation) / 2 * 0.5**num_extra
    present, colour, shape = fits.mean(0)
    return Verdict(
        float(present),
        float(colour),
        float(shape),
        relation,
        score,
        bool((fits > 0.5).all() and relation > 0.5 and not num_extra),
    )


def _fit(blob: Blob | None, thing: Thing) -> tuple[float, float, float]:
    """Returns how far the blob is there, has the thing's colour, and has its shape."""
    if blob is None:
        return 0.0, 0.0, 0.0
    colour = _lead(-blob.colour_distances, COLOURS.index(thing.colour), COLOUR_MARGIN)
    near = float(np.clip((0.6 - blob.colour_distances[COLOURS.index(thing.colour)]) / 0.3, 0, 1))
    shape = _lead(blob.shape_overlaps, SHAPES.index(thing.shape), SHAPE_MARGIN)
    clear = float(np.clip((blob.shape_overlaps[SHAPES.index(thing.shape)] - 0.5) / 0.2, 0, 1))
    return 1.0, colour * near, shape * clear


def _lead(values: FloatArray, wanted: int, margin: float) -> float:
    """Returns 0.5 where the wanted value ties with the best other one, 1 or 0 a margin above or below."""
    best_other = np.delete(values, wanted).max()
    return float(np.clip(0.5 + (values[wanted] - best_other) / (2 * margin), 0, 1))


def _relation_holds(first: Blob | None, second: Blob | None, relation: str) -> float:
    """Returns 0.5 where the second thing lies at 45 degrees, more where it lies along the relation."""
    if first is None or second is None:
        return 0.0
    dx, dy = second.x - first.x, second.y - first.y
    along, across = {
        "left of": (dx, dy),
        "right of": (-dx, dy),
        "above": (dy, dx),
        "below": (-dy, dx),
    }[relation]
    return float(np.clip(0.5 + (along - abs(across)) / (2 * RELATION_MARGIN), 0, 1))
