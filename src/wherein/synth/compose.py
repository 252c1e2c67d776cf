"""Composites: cut-outs pasted on a background, with exact boxes (PIN, CVPR'24, eq. 5; after X-Paste)."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from wherein.errors import InputError
from wherein.synth.objects import ObjectBank

SOLID = 128  # alpha from which a pixel counts as the object


@dataclass(frozen=True)
class ComposeConfig:
    """How objects are pasted. The defaults are the paper's; the options after `tries` are not from the paper.

    min_objects, max_objects: number of objects, uniform; s_min, s_max: for the j-th object, bounds of its longer side
    as a fraction of the image side, uniform; max_overlap: largest intersection / area of either box of a pair;
    tries: placements tried before no further object is added; flip: mirror half of the objects; jitter: largest
    relative change of brightness, contrast and saturation per object; grayscale: share of the objects made grey;
    blur: largest radius, in pixels, of a box blur over the image; jpeg: lowest JPEG quality, 0 for no compression.
    """

    min_objects: int = 1
    max_objects: int = 3
    s_min: tuple[float, ...] = (0.3, 0.2, 0.1)
    s_max: tuple[float, ...] = (1.0, 1.0, 1.0)
    max_overlap: float = 0.5
    tries: int = 50
    flip: bool = False
    jitter: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    jpeg: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_objects <= self.max_objects <= min(len(self.s_min), len(self.s_max)):
            raise InputError(
                f"ComposeConfig needs 1 <= min_objects <= max_objects and one s_min and s_max per object; "
                f"got {self.min_objects}, {self.max_objects}, {self.s_min} and {self.s_max}."
            )


PAPER = ComposeConfig()
AUGMENTED = ComposeConfig(flip=True, jitter=0.3, grayscale=0.05, blur=1.0, jpeg=40)


@dataclass(frozen=True)
class Placed:
    """An object of a composite: name, box float64[4] (xyxy, pixels of the composite, tight around the pasted alpha and
    not reduced by later objects), index of the cut-out in the bank, and the fraction of it left visible."""

    name: str
    box: NDArray[np.float64]
    cutout: int
    visible: float


@dataclass(frozen=True)
class Composite:
    """image uint8[S, S, 3] and its objects, in the order they were pasted (later ones on top)."""

    image: NDArray[np.uint8]
    objects: list[Placed]


def compose(
    background: NDArray[np.uint8], bank: ObjectBank, rng: np.random.Generator, config: ComposeConfig = PAPER
) -> Composite:
    """Paste objects of different names from `bank` on a copy of `background` uint8[S, S, 3].

    At least one object is pasted. Equal arguments and an equal generator state give an equal composite.
    Raises InputError when the background is not square RGB or the bank is empty.
    """
    side = background.shape[0]
    if background.shape != (side, side, 3) or not len(bank):
        raise InputError(f"compose needs a square RGB background and a bank that is not empty; got {background.shape}.")
    canvas = Image.fromarray(background)
    owner = np.full((side, side), -1, np.int8)  # which object each pixel shows
    boxes = np.empty((0, 4))
    placed: list[tuple[str, int, int]] = []
    count = min(int(rng.integers(config.min_objects, config.max_objects + 1)), len(bank.names))
    for order, choice in enumerate(rng.choice(len(bank.names), count, replace=False)):
        name = bank.names[choice]
        index = int(rng.choice(bank.indices(name)))
        cutout = _vary(Image.fromarray(bank[index].rgba), rng, config)
        spot = _place(cutout, side, boxes, config.s_min[order], config.s_max[order], rng, config)
        if spot is None:
            break
        pasted, corner, box = spot
        canvas.paste(pasted, corner, pasted)
        solid = np.asarray(pasted)[..., 3] >= SOLID
        window = owner[corner[1] : corner[1] + pasted.height, corner[0] : corner[0] + pasted.width]
        window[solid] = order
        boxes = np.concatenate([boxes, box[None]])
        placed.append((name, index, int(solid.sum())))
    objects = [
        Placed(name, boxes[order], index, float((owner == order).sum() / pixels))
        for order, (name, index, pixels) in enumerate(placed)
    ]
    return Composite(_degrade(canvas, rng, config), objects)


def _place(
    cutout: Image.Image,
    side: int,
    boxes: NDArray[np.float64],
    s_min: float,
    s_max: float,
    rng: np.random.Generator,
    config: ComposeConfig,
) -> tuple[Image.Image, tuple[int, int], NDArray[np.float64]] | None:
    """A size and a corner for which the overlap bound holds: the resized cut-out, its corner and its tight box."""
    for _ in range(config.tries):
        longer = rng.uniform(s_min, s_max) * side
        scale = longer / max(cutout.size)
        width, height = (max(1, min(side, round(length * scale))) for length in cutout.size)
        left, top = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
        if _overlap(np.array([left, top, left + width, top + height]), boxes) > config.max_overlap:
            continue  # not worth a resize
        pasted = cutout.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        tight = pasted.getchannel("A").point(_THRESHOLD).getbbox()
        if tight is None:
            continue
        box = np.array(tight, np.float64) + (left, top, left, top)
        if (box[2:] - box[:2]).max() < s_min * side - 1:
            continue  # thin tips faded away
        if _overlap(box, boxes) <= config.max_overlap:
            return pasted, (left, top), box
    return None


_THRESHOLD = [0] * SOLID + [255] * (256 - SOLID)


def _overlap(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> float:
    """Largest intersection / smaller area between `box` float64[4] and `boxes` float64[N, 4]."""
    if not len(boxes):
        return 0.0
    shared = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None).prod(1)
    smaller = np.minimum((box[2:] - box[:2]).prod(), (boxes[:, 2:] - boxes[:, :2]).prod(1))
    return float((shared / smaller).max())


def _vary(cutout: Image.Image, rng: np.random.Generator, config: ComposeConfig) -> Image.Image:
    """Mirror and recolour one object as the options ask; its alpha stays."""
    if config.flip and rng.random() < 0.5:
        cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    grey = config.grayscale > 0 and rng.random() < config.grayscale
    if not grey and not config.jitter:
        return cutout
    colour = cutout.convert("RGB")
    if grey:
        colour = colour.convert("L").convert("RGB")
    if config.jitter:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            colour = enhance(colour).enhance(1 + rng.uniform(-config.jitter, config.jitter))
    colour.putalpha(cutout.getchannel("A"))
    return colour


def _degrade(image: Image.Image, rng: np.random.Generator, config: ComposeConfig) -> NDArray[np.uint8]:
    """Blur and compress the whole image as the options ask."""
    if config.blur:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0, config.blur)))
    if config.jpeg:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(rng.integers(config.jpeg, 96)))
        image = Image.open(stream)
    return np.asarray(image.convert("RGB"))
