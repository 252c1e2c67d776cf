"""Where an object may lie on a composite: its size, its corner, and the tight box of what is pasted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]

SOLID = 128  # alpha from which a pixel counts as the object
_SOLID = [0] * SOLID + [255] * (256 - SOLID)


@dataclass(frozen=True)
class Bounds:
    """Sizes and places to draw from, for an object of a composite `side` pixels wide.

    smallest, largest: of the longer side, as a fraction of `side`; grid: cells along a side on whose lines corners lie
    and in whose number longer sides are counted (PIN's released code), 0 for any pixel; tries: sizes drawn at most.
    """

    side: int
    smallest: float
    largest: float
    grid: int
    tries: int

    @property
    def cells(self) -> tuple[int, int]:
        """On a grid, the longer sides in cells: from the first to below the second."""
        return max(1, round(self.grid * self.smallest)), max(2, round(self.grid * self.largest))

    @property
    def least(self) -> float:
        """The smallest longer side in pixels."""
        return self.cells[0] * self.side / self.grid if self.grid else self.smallest * self.side


@dataclass(frozen=True)
class Spot:
    """A cut-out at its size (RGBA), the pixel of its top left corner, its solid pixels (L, 0 or 255) and their box."""

    picture: Image.Image
    corner: tuple[int, int]
    solid: Image.Image
    box: Box


def place(
    cutout: Image.Image,
    bounds: Bounds,
    rng: np.random.Generator,
    allowed: Callable[[Box], bool],
    finish: Callable[[Image.Image], Image.Image],
) -> Spot | None:
    """A size and a place for which the tight box is allowed, or None where none was found.

    `finish` is done to the resized cut-out before its box is taken.
    """
    resized: tuple[int, int] | None = None
    for width, height, left, top in _candidates(cutout.size, bounds, rng):
        if not allowed((left, top, left + width, top + height)):
            continue  # not worth a resize
        if resized != (width, height):
            resized = width, height
            picture = finish(cutout.resize(resized, Image.Resampling.BILINEAR, reducing_gap=2.0))
            solid = solid_of(picture)
            tight = solid.getbbox()
        if tight is None or max(tight[2] - tight[0], tight[3] - tight[1]) < bounds.least - 1:
            continue  # thin tips faded away
        box = (left + tight[0], top + tight[1], left + tight[2], top + tight[3])
        if allowed(box):
            return Spot(picture, (left, top), solid, box)
    return None


def _candidates(size: tuple[int, int], bounds: Bounds, rng: np.random.Generator) -> Iterator[tuple[int, int, int, int]]:
    """Width, height, left and top of a cut-out of this size, in pixels of the composite."""
    side = bounds.side
    for _ in range(bounds.tries):
        if bounds.grid:
            longer = int(rng.integers(*bounds.cells)) * side / bounds.grid
        else:
            longer = rng.uniform(bounds.smallest, bounds.largest) * side
        width, height = _resized(size, longer, side)
        yield width, height, _start(width, bounds, rng), _start(height, bounds, rng)
    if not bounds.grid:
        return
    cell = side // bounds.grid
    for cells in range(*bounds.cells):  # the smallest size wherever there is room; a larger one only if its tips fade
        width, height = _resized(size, cells * cell, side)
        corners = [(x, y) for y in range(0, side - height + 1, cell) for x in range(0, side - width + 1, cell)]
        for choice in rng.permutation(len(corners)):
            yield width, height, *corners[choice]


def _resized(size: tuple[int, int], longer: float, side: int) -> tuple[int, int]:
    """Width and height at the aspect ratio of `size`, the longer one as asked."""
    scale = longer / max(size)
    width, height = (max(1, min(side, round(length * scale))) for length in size)
    return width, height


def _start(length: int, bounds: Bounds, rng: np.random.Generator) -> int:
    """The left or top of something so long, inside the composite."""
    if not bounds.grid:
        return int(rng.integers(bounds.side - length + 1))
    cell = bounds.side // bounds.grid
    return int(rng.integers((bounds.side - length) // cell + 1)) * cell


def solid_of(picture: Image.Image) -> Image.Image:
    """The solid pixels of an RGBA picture: L, 0 or 255."""
    return picture.getchannel("A").point(_SOLID)


def overlap(box: Box, others: Iterable[Box]) -> float:
    """Largest intersection / smaller area between a box and others; 0 where there is none."""
    return max((_shared(box, other) / min(_area(box), _area(other)) for other in others), default=0.0)


def offset(box: Box, other: Box) -> float:
    """How far apart the centres of two boxes are along the axis where they are farther, in pixels."""
    return max(abs(box[i] + box[i + 2] - other[i] - other[i + 2]) for i in (0, 1)) / 2


def _shared(box: Box, other: Box) -> int:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0, width) * max(0, height)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
