"""Draws captions of the shapes world as images.

Lives here: the palette, the six shapes as signed distances, the placement of things, and the sampling of
pretraining data. numpy only. Axis letters: B batch, N things, H rows, W columns, C colour.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from egrpo.tiny.captions import COLOURS, RELATIONS, SHAPES, Caption, Thing, is_held_out

IMAGE_SIZE = 64
BACKGROUND = (0.96, 0.96, 0.94)
PALETTE = np.array(
    [
        (0.90, 0.10, 0.12),  # red
        (1.00, 0.55, 0.05),  # orange
        (0.98, 0.88, 0.10),  # yellow
        (0.10, 0.62, 0.20),  # green
        (0.15, 0.80, 0.88),  # cyan
        (0.12, 0.25, 0.88),  # blue
        (0.60, 0.20, 0.72),  # purple
        (0.10, 0.10, 0.10),  # black
    ]
)
MIN_RADIUS, MAX_RADIUS = 10.0, 12.0
MAX_SIDEWAYS = 5.0  # how far the second thing may stray from the axis of the relation, in pixels
MAX_SHIFT = 7.0  # how far a picture's subject may be from its middle, in pixels and in each direction

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Where things are: per thing the centre (x, y) and the radius in pixels, and its RGB in [0, 1]."""

    shapes: tuple[str, ...]
    centres: tuple[tuple[float, float], ...]
    radii: tuple[float, ...]
    colours: tuple[tuple[float, float, float], ...]


def signed_distance(shape: str, x: Array, y: Array, radius: Array | float) -> Array:
    """Returns the signed distance to a shape centred on the origin, y pointing down; negative inside.

    The extents are chosen so that the six shapes cover similar areas at one radius.

    Raises:
        ValueError: The shape is not one of `SHAPES`.
    """
    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.hypot(x, y) - 0.95 * radius
    if shape == "square":
        return np.asarray(np.maximum(ax, ay) - 0.85 * radius)
    if shape == "triangle":  # equilateral, tip up, circumradius 1.2
        down = y - 0.15 * radius
        return np.maximum(0.8660254 * ax - 0.5 * down, down) - 0.6 * radius
    if shape == "diamond":
        return np.asarray((ax + ay - 1.15 * radius) / np.sqrt(2.0))
    if shape == "star":
        return _star(x, y, 1.2 * radius)
    if shape == "cross":
        arm, half = 1.05 * radius, 0.36 * radius
        return np.minimum(np.maximum(ax - arm, ay - half), np.maximum(ax - half, ay - arm))
    raise ValueError(f"shape is {shape!r}; allowed: {', '.join(SHAPES)}")


def _star(x: Array, y: Array, outer: Array | float) -> Array:
    """Five points, tip up: fold the angle into half a sector and take the distance to its one edge."""
    sector = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
    reach = np.hypot(x, y)
    inner = 0.45
    valley_x, valley_y = inner * np.cos(sector / 2), inner * np.sin(sector / 2)
    edge = np.hypot(valley_x - 1, valley_y)
    normal_x, normal_y = valley_y / edge, (1 - valley_x) / edge
    return np.asarray((reach * np.cos(angle) - outer) * normal_x + reach * np.sin(angle) * normal_y)


def place(caption: Caption, rng: np.random.Generator, size: int = IMAGE_SIZE) -> Scene:
    """Draws positions, sizes and slight colour changes that satisfy a caption."""
    radii = rng.uniform(MIN_RADIUS, MAX_RADIUS, len(caption.things))
    colours = [PALETTE[COLOURS.index(thing.colour)] + rng.uniform(-0.03, 0.03, 3) for thing in caption.things]
    if caption.second is None:
        centres = [size / 2 + rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2)]
    else:
        centres = _related(str(caption.relation), radii, rng, size)
    return Scene(
        tuple(thing.shape for thing in caption.things),
        tuple((float(cx), float(cy)) for cx, cy in centres),
        tuple(float(radius) for radius in radii),
        tuple((float(r), float(g), float(b)) for r, g, b in np.clip(colours, 0, 1)),
    )


def _related(relation: str, radii: Array, rng: np.random.Generator, size: int) -> list[Array]:
    gap = radii.sum() * 1.1 + rng.uniform(3.0, 6.0)
    room = min(MAX_SHIFT, (size - gap) / 2 - MAX_RADIUS - 2)  # between the outer thing and the picture's edge
    along = size / 2 + rng.uniform(-room, room) + gap * np.array([-0.5, 0.5])
    middle = size / 2 + rng.uniform(-MAX_SHIFT, MAX_SHIFT)
    across = middle + rng.uniform(-0.5, 0.5) * MAX_SIDEWAYS * np.array([1.0, -1.0])
    if relation in ("right of", "below"):
        along = along[::-1]
    points = (along, across) if relation in ("left of", "right of") else (across, along)
    return [np.array([points[0][n], points[1][n]]) for n in range(2)]


def render(scene: Scene, size: int = IMAGE_SIZE) -> NDArray[np.uint8]:
    """Draws a scene, antialiased over one pixel: uint8 [H, W, 3]."""
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    image = np.broadcast_to(np.array(BACKGROUND), (size, size, 3)).copy()
    for shape, (cx, cy), radius, colour in zip(scene.shapes, scene.centres, scene.radii, scene.colours, strict=True):
        distance = signed_distance(shape, columns - cx, rows - cy, radius)
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        image = image * (1 - cover) + np.array(colour) * cover
    return (image * 255 + 0.5).astype(np.uint8)


def sample_caption(rng: np.random.Generator, two_things: float = 0.85) -> Caption:
    """Draws a caption that pretraining may see: never a held-out one."""
    while True:
        caption = _any_caption(rng, rng.random() < two_things)
        if not is_held_out(caption):
            return caption


def _any_caption(rng: np.random.Generator, two: bool) -> Caption:
    c1, c2 = rng.choice(len(COLOURS), 2, replace=False)
    s1, s2 = rng.choice(len(SHAPES), 2, replace=False)
    first = Thing(COLOURS[c1], SHAPES[s1])
    if not two:
        return Caption(first)
    return Caption(first, RELATIONS[rng.integers(len(RELATIONS))], Thing(COLOURS[c2], SHAPES[s2]))


def sample_pair(rng: np.random.Generator) -> tuple[Caption, NDArray[np.uint8]]:
    """Draws one pretraining pair: a caption and an image of it."""
    caption = sample_caption(rng)
    return caption, render(place(caption, rng))


def garble(caption: Caption, rng: np.random.Generator, relation_noise: float) -> Caption:
    """Returns the caption as a careless writer has it: with a random relation at the given probability.

    A held-out caption stays unseen: where the random relation would make one, the caption is returned as it is.
    """
    if caption.second is None or rng.random() >= relation_noise:
        return caption
    garbled = Caption(caption.first, RELATIONS[rng.integers(len(RELATIONS))], caption.second)
    return caption if is_held_out(garbled) else garbled
