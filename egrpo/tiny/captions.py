"""The language of the shapes world: what a caption says, and back.

A caption names one object (`a red circle`) or two with a spatial relation (`a blue square left of a yellow
triangle`). Lives here: vocabulary, grammar, and the combinations that pretraining never sees. Free of torch and
numpy, so that a job's prompts can be checked wherever the spec is checked.
"""

import re
from dataclasses import dataclass
from itertools import product

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "black")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
RELATIONS = ("left of", "right of", "above", "below")

# Never drawn in pretraining: a test of generalisation to new colour-shape pairs.
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("orange", "square"),
        ("yellow", "cross"),
        ("green", "diamond"),
        ("blue", "triangle"),
        ("purple", "circle"),
    }
)

_OBJECT = rf"an? ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_CAPTION = re.compile(rf"{_OBJECT}(?: ({'|'.join(RELATIONS)}) {_OBJECT})?")


@dataclass(frozen=True)
class Thing:
    """One coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Caption:
    """One thing, or two things with the relation of the first to the second."""

    first: Thing
    relation: str | None = None
    second: Thing | None = None

    def __str__(self) -> str:
        return str(self.first) if self.second is None else f"{self.first} {self.relation} {self.second}"

    @property
    def things(self) -> tuple[Thing, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)


def parse_caption(text: str) -> Caption:
    """Reads a caption of the shapes world.

    Case, surrounding space and a final full stop do not matter.

    Raises:
        ValueError: The text is not in the language; the message says what is.
    """
    match = _CAPTION.fullmatch(" ".join(text.lower().split()).rstrip("."))
    if match is None:
        raise ValueError(
            f"{text!r} is not a caption of the shapes world: write 'a COLOUR SHAPE' or 'a COLOUR SHAPE RELATION a "
            f"COLOUR SHAPE' with colours {', '.join(COLOURS)}; shapes {', '.join(SHAPES)}; relations "
            f"{', '.join(RELATIONS)}"
        )
    colour, shape, relation, other_colour, other_shape = match.groups()
    if relation is None:
        return Caption(Thing(colour, shape))
    return Caption(Thing(colour, shape), relation, Thing(other_colour, other_shape))


def is_held_out(caption: Caption) -> bool:
    """True when pretraining never draws this caption: a held-out pair, or a held-out (shape, relation, shape)."""
    if any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in caption.things):
        return True
    if caption.second is None:
        return False
    key = SHAPES.index(caption.first.shape) + 2 * SHAPES.index(caption.second.shape)
    return (key + 3 * RELATIONS.index(str(caption.relation))) % 12 == 5  # one triple in twelve


def all_captions(num_things: int) -> list[Caption]:
    """Every caption with one or two things, the two differing in colour and in shape, in a fixed order.

    Raises:
        ValueError: `num_things` is neither 1 nor 2.
    """
    things = [Thing(colour, shape) for colour, shape in product(COLOURS, SHAPES)]
    if num_things == 1:
        return [Caption(thing) for thing in things]
    if num_things != 2:
        raise ValueError(f"num_things is {num_things}; allowed: 1, 2")
    return [
        Caption(a, relation, b)
        for a, relation, b in product(things, RELATIONS, things)
        if a.colour != b.colour and a.shape != b.shape
    ]
