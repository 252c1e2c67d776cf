"""Composites: cut-outs pasted on a background, with exact boxes (PIN, CVPR'24, eq. 5; after X-Paste)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wherein.errors import InputError
from wherein.synth.appearance import degrade, soften, vary
from wherein.synth.objects import Cutout, ObjectBank
from wherein.synth.picture_cache import PictureCache
from wherein.synth.placement import SOLID, Bounds, Box, Spot, offset, overlap, place

APART = 0.2
"""Two instances of a name are told apart by their place from this offset of their centres on, in image sides."""
HIDES = 0.05
"""An object lies before another one if it hides at least this fraction of it."""
SOFTEST = 32
"""Largest radius over which an edge may fade, pixels."""
_BEGINNINGS = 20  # of a composite on a grid, which is not left with fewer objects than drawn


@dataclass(frozen=True)
class ComposeConfig:
    """How objects are pasted. The defaults are the paper's; the options from `flip` on are not from the paper.

    min_objects, max_objects: number of objects, uniform; s_min, s_max: for the j-th object, bounds of its longer side
    as a fraction of the image side, uniform; max_overlap: largest intersection / area of either box of a pair;
    tries: placements tried before no further object is added; grid: longer sides and corners are whole cells of so many
    along the image, 0 for any pixel, and where no try succeeds the smallest size is put wherever it may be, so that no
    object is left out; pairs: share of composites drawn with two instances of one name, whose centres lie more than
    `APART` apart along an axis (the second is left out where no try finds a place for it);
    flip: mirror half of the objects; jitter: largest relative change of brightness, contrast and saturation per object;
    grayscale: share of the objects made grey; soft: largest radius, in pixels, over which an object fades at its edge;
    blur: largest radius, in pixels, of a box blur over the image; jpeg: lowest JPEG quality, 0 for no compression.
    """

    min_objects: int = 1
    max_objects: int = 3
    s_min: tuple[float, ...] = (0.3, 0.2, 0.1)
    s_max: tuple[float, ...] = (1.0, 1.0, 1.0)
    max_overlap: float = 0.5
    tries: int = 50
    grid: int = 0
    pairs: float = 0.0
    flip: bool = False
    jitter: float = 0.0
    grayscale: float = 0.0
    soft: float = 0.0
    blur: float = 0.0
    jpeg: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_objects <= self.max_objects <= min(len(self.s_min), len(self.s_max)):
            raise InputError(
                f"ComposeConfig needs 1 <= min_objects <= max_objects and one s_min and s_max per object; "
                f"got {self.min_objects}, {self.max_objects}, {self.s_min} and {self.s_max}."
            )
        if not 0 <= self.pairs <= 1 or (self.pairs and self.max_objects < 2):
            raise InputError(
                f"ComposeConfig needs pairs from 0 to 1, and max_objects of 2 or more with them; "
                f"got {self.pairs} and {self.max_objects}."
            )
        if not (0 <= self.soft <= SOFTEST and 0 <= self.jitter <= 1):
            raise InputError(
                f"ComposeConfig needs soft from 0 to {SOFTEST} pixels and jitter from 0 to 1; "
                f"got {self.soft} and {self.jitter}."
            )


PAPER = ComposeConfig()
GRID = ComposeConfig(min_objects=3, tries=10, grid=16)
"""As in PIN's released code: three objects, sizes in cells of 16 x 16."""
AUGMENTED = ComposeConfig(flip=True, jitter=0.3, grayscale=0.05, blur=1.0, jpeg=40)
REFERRAL = ComposeConfig(pairs=0.5)
"""For expressions such as "left apple": half of the images are drawn with a pair, which needs the position word."""


@dataclass(frozen=True)
class Placed:
    """An object of a composite: name, box float64[4] (xyxy, pixels of the composite, tight around the pasted alpha and
    not reduced by later objects), index of the cut-out in the bank, the fraction of it left visible, and the places in
    the list of the objects that it lies before (see HIDES)."""

    name: str
    box: NDArray[np.float64]
    cutout: int
    visible: float
    hides: tuple[int, ...] = ()


@dataclass(frozen=True)
class Composite:
    """image uint8[S, S, 3] and its objects, in the order they were pasted (later ones on top)."""

    image: NDArray[np.uint8]
    objects: list[Placed]


def compose(
    background: NDArray[np.uint8], bank: ObjectBank, rng: np.random.Generator, config: ComposeConfig = PAPER
) -> Composite:
    """Paste objects from `bank` on a copy of `background` uint8[S, S, 3]; their names differ but for `config.pairs`.

    At least one object is pasted. Equal arguments and an equal generator state give an equal composite.

    Raises:
        InputError: the background is not square RGB or does not fit the grid, the bank is empty or has too few names
            for a grid, or the first cut-out drawn cannot be used; an ImageError if it cannot be read.
    """
    side = background.shape[0]
    if background.shape != (side, side, 3) or not len(bank):
        raise InputError(f"compose needs a square RGB background and a bank that is not empty; got {background.shape}.")
    if config.grid and side % config.grid:
        raise InputError(f"A composite of {side} pixels has no {config.grid} whole cells along its side.")
    if config.grid and len(bank.names) < config.min_objects:
        raise InputError(
            f"A composite on a grid has at least {config.min_objects} objects of different names, but the bank has "
            f"{len(bank.names)} of them: give cut-outs of more names."
        )
    for _ in range(_BEGINNINGS if config.grid else 1):
        pile, chosen, unfit = _pile_up(background, bank, rng, config)
        if unfit is None:
            break
    if unfit is not None and (config.grid or not chosen):
        raise InputError(f"No size of the cut-out {unfit.source} ({unfit.name}) fits: too little of it is solid.")
    return Composite(degrade(pile.canvas, rng, config.blur, config.jpeg), pile.objects(chosen))


def _pile_up(
    background: NDArray[np.uint8], bank: ObjectBank, rng: np.random.Generator, config: ComposeConfig
) -> tuple[_Pile, list[tuple[str, int]], Cutout | None]:
    """Objects pasted until there are enough or one does not fit: what they make, their names and places in the bank,
    and the cut-out that did not fit."""
    side, pile, chosen = background.shape[0], _Pile(background), list[tuple[str, int]]()
    for order, name in enumerate(_names(bank, rng, config)):
        index = _pick(bank, name, rng, [index for _, index in chosen])
        cutout = vary(picture_of(bank[index]), rng, config.flip, config.jitter, config.grayscale)
        radius = rng.uniform(0, config.soft) if config.soft else 0.0
        twins = [pile.boxes[i] for i, (other, _) in enumerate(chosen) if other == name]
        bounds = Bounds(side, config.s_min[order], config.s_max[order], config.grid, config.tries)
        spot = place(cutout, bounds, rng, partial(_allowed, pile.boxes, twins, side, config), partial(soften, radius))
        if spot is None:
            return pile, chosen, bank[index]
        pile.add(spot)
        chosen.append((name, index))
    return pile, chosen, None


def _allowed(boxes: list[Box], twins: list[Box], side: int, config: ComposeConfig, box: Box) -> bool:
    """Whether a box leaves enough of the boxes already there, and lies apart from those of the same name."""
    apart = all(offset(box, twin) > APART * side for twin in twins)
    return apart and overlap(box, boxes) <= config.max_overlap


class _Pile:
    """A canvas with objects on it, which knows what hides what."""

    def __init__(self, background: NDArray[np.uint8]) -> None:
        self.canvas = Image.fromarray(background)
        self.boxes: list[Box] = []
        self._owner = Image.new("L", self.canvas.size)  # each pixel's object, from 1 on
        self._pixels: list[int] = []
        self._hidden: list[list[int]] = []  # by the j-th object: pixels of the background and of each object

    def add(self, spot: Spot) -> None:
        """Paste one more object on top."""
        (left, top), (width, height) = spot.corner, spot.picture.size
        self.canvas.paste(spot.picture, spot.corner, spot.picture)
        hidden = self._owner.crop((left, top, left + width, top + height)).histogram(spot.solid)
        self.boxes.append(spot.box)
        self._hidden.append(hidden)
        self._pixels.append(sum(hidden))
        self._owner.paste(len(self.boxes), spot.corner, spot.solid)

    def objects(self, chosen: list[tuple[str, int]]) -> list[Placed]:
        """What lies here, in the order it was added, under these names and places in the bank."""
        placed = []
        for order, (name, index) in enumerate(chosen):
            pixels, later = self._pixels[order], self._hidden[order + 1 :]
            visible = (pixels - sum(hidden[order + 1] for hidden in later)) / pixels
            under = enumerate(self._hidden[order][1 : order + 1])
            hides = tuple(other for other, hidden in under if hidden >= HIDES * self._pixels[other])
            placed.append(Placed(name, np.array(self.boxes[order], np.float64), index, visible, hides))
        return placed


_cache = PictureCache()


def picture_of(cutout: Cutout) -> Image.Image:
    """The cut-out as RGBA without its transparent margins, kept for the next time; not to be changed.

    Raises:
        ImageError: it cannot be read.
        InputError: none of its pixels is solid.
    """
    return _cache.get(cutout, lambda: _trimmed(cutout))


def _trimmed(cutout: Cutout) -> Image.Image:
    picture = Image.fromarray(cutout.rgba)
    alpha = picture.getchannel("A")
    if alpha.getextrema()[1] < SOLID:  # type: ignore[operator]
        raise InputError(f"The cut-out {cutout.source} ({cutout.name}) is transparent everywhere.")
    return picture.crop(alpha.getbbox())


def _names(bank: ObjectBank, rng: np.random.Generator, config: ComposeConfig) -> list[str]:
    """The names of the objects to paste, in order; the first comes twice where a pair is drawn."""
    count = min(int(rng.integers(config.min_objects, config.max_objects + 1)), len(bank.names))
    names = [bank.names[choice] for choice in rng.choice(len(bank.names), count, replace=False)]
    if config.pairs and rng.random() < config.pairs:
        names.insert(1, names[0])
    return names[: config.max_objects]


def _pick(bank: ObjectBank, name: str, rng: np.random.Generator, used: list[int]) -> int:
    """A cut-out of this name, if possible one that is not used yet."""
    indices = bank.indices(name)
    return int(rng.choice([index for index in indices if index not in used] or indices))
