"""Groundings drawn on their image: boxes by supervision, masks under them, labels placed so that they can be read."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wherein import geometry
from wherein.grounding import Grounding, score_text
from wherein.phrases import head

if TYPE_CHECKING:
    from PIL import Image, ImageFont

# Colours that people with any colour vision can tell apart (Okabe & Ito 2008), each with its best text colour.
_COLOURS = ["#D55E00", "#0072B2", "#009E73", "#F0E442", "#CC79A7", "#56B4E9", "#E69F00"]
_ON_COLOURS = ["#FFFFFF", "#FFFFFF", "#FFFFFF", "#000000", "#000000", "#000000", "#000000"]
_NOTE, _ON_NOTE = "#202020", "#FFFFFF"
_MASK_OPACITY = 0.45  # a mask's colour is seen at once, and what is under it is still recognised


def draw(image: NDArray[np.uint8], groundings: Sequence[Grounding], *, masks: bool = False) -> NDArray[np.uint8]:
    """A copy uint8[H, W, 3] of an image uint8[H, W, 3] with the boxes of groundings on it, and their masks if wanted.

    Each phrase has its colour, each box its label "phrase score". What has no box is listed at the top left: "no
    unicorn" where the phrase is absent, "unicorn unanswered" where the answer was invalid. Lines and text grow with the
    image, labels stay inside it and are shortened where they would not fit. With `masks`, the mask of each phrase that
    has one lies under the boxes, in the phrase's colour, half transparent in a solid outline.
    """
    from PIL import Image

    height, width = image.shape[:2]
    phrases = list(dict.fromkeys(grounding.phrase for grounding in groundings))
    colours = [phrases.index(grounding.phrase) % len(_COLOURS) for grounding in groundings]
    if masks:
        image = _paint_masks(image, [(g.mask, _COLOURS[c]) for g, c in zip(groundings, colours, strict=True)])
    scene = Image.fromarray(image).copy()
    for grounding, colour in zip(groundings, colours, strict=True):
        draw_boxes(scene, grounding.boxes, _COLOURS[colour])
    label = _Labels(scene, max(7, round(min(math.sqrt(width * height) / 36, min(width, height) / 4))))
    missing = _missing(groundings)
    if missing:
        label.add(missing, "", np.zeros(4), _NOTE, _ON_NOTE)
    for grounding, colour in zip(groundings, colours, strict=True):
        for box, score in zip(grounding.boxes, grounding.scores, strict=True):
            label.add(grounding.phrase, f" {score_text(score)}", box, _COLOURS[colour], _ON_COLOURS[colour])
    return np.array(scene)


def draw_boxes(scene: "Image.Image", boxes: NDArray[np.float64], colour: str, thickness: int | None = None) -> None:
    """Draw boxes float64[K, 4] (pixels) onto a picture, in a line `thickness` pixels wide.

    Without a thickness, the line is as wide as the picture's size asks for.
    """
    with warnings.catch_warnings():  # without OpenCV supervision draws the same, and says so at every start
        warnings.filterwarnings("ignore", message="OpenCV")
        import supervision as sv

    last = np.array([scene.width, scene.height, scene.width, scene.height]) - 1  # beyond it, a line would not be seen
    if thickness is None:
        thickness = max(1, round(math.sqrt(scene.width * scene.height) / 200 + 0.5))
    detections = sv.Detections(xyxy=np.clip(boxes, 0, last), class_id=np.zeros(len(boxes), dtype=int))
    sv.BoxAnnotator(color=sv.Color.from_hex(colour), thickness=thickness).annotate(scene, detections)


def load_font(size: int) -> "ImageFont.FreeTypeFont":
    """The font of all pictures: DejaVu Sans for its many scripts, from matplotlib, which supervision brings along."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def shorten(text: str, tail: str, fits: Callable[[str], bool]) -> str:
    """`text + tail`, the text cut with an ellipsis until it fits; where the tail leaves no room, without the tail."""
    if fits(text + tail):
        return text + tail
    for ending in (f"…{tail}", "…"):
        for kept in range(len(text) - 1, 2, -1):
            cut = text[:kept].rstrip() + ending
            if fits(cut):
                return cut
    return text[:3]


class _Labels:
    """The labels on one picture: each lies inside it, at its box, and off the earlier ones where there is room."""

    def __init__(self, scene: "Image.Image", size: int) -> None:
        from PIL import ImageDraw

        self._scene, self._pen, self._font = scene, ImageDraw.Draw(scene), load_font(size)
        self._padding = max(1, size // 4)
        self._height = sum(self._font.getmetrics())
        self._taken = np.zeros((0, 4))

    def add(self, text: str, tail: str, box: NDArray[np.float64], colour: str, text_colour: str) -> None:
        """Label a box float64[4]."""
        shown = shorten(text, tail, lambda part: self._width(part) <= self._scene.width)
        place = self._place(box, self._width(shown))
        self._taken = np.vstack([self._taken, place])
        left, top, right, bottom = (round(value) for value in place)
        self._pen.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        self._pen.text((left + self._padding, top), shown, font=self._font, fill=text_colour)

    def _width(self, text: str) -> int:
        return math.ceil(self._font.getlength(text)) + 2 * self._padding

    def _place(self, box: NDArray[np.float64], width: int) -> NDArray[np.float64]:
        """float64[4]: above the box, else below or inside it, else in the first free row under the image's top."""
        left, top, right, bottom = box
        rows = np.arange(0, self._scene.height, self._height)
        corners = [(left, top - self._height), (right - width, top - self._height), (left, bottom), (left, top)]
        corners += [(left, row) for row in rows] + [(right - width, row) for row in rows]
        room = (max(0, self._scene.width - width), max(0, self._scene.height - self._height))
        start = np.clip(np.array(corners), 0, room)
        places = np.hstack([start, start + (width, self._height)])
        best: NDArray[np.float64] = places[geometry.iou(places, self._taken).sum(axis=1).argmin()]
        return best


def _paint_masks(image: NDArray[np.uint8], masks: Sequence[tuple[NDArray[np.bool_] | None, str]]) -> NDArray[np.uint8]:
    """A copy uint8[H, W, 3] of an image with masks bool[H, W] filled in their colours, then all outlines on top.

    Raises:
        ValueError: a mask has not the image's height and width.
    """
    from PIL import ImageColor
    from scipy.ndimage import binary_erosion

    painted, (height, width) = image.copy(), image.shape[:2]
    thickness = max(1, round(math.sqrt(width * height) / 300))
    values = np.arange(256)[:, None]
    outlines = []
    for mask, name in masks:
        if mask is None:
            continue
        if mask.shape != (height, width):
            raise ValueError(f"a mask must have the image's shape {(height, width)}, not {mask.shape}")
        colour = np.array(ImageColor.getrgb(name))
        filled = np.rint((1 - _MASK_OPACITY) * values + _MASK_OPACITY * colour).astype(np.uint8)  # of each value
        painted[mask] = filled[painted[mask], np.arange(3)]
        outlines.append((mask & ~binary_erosion(mask, iterations=thickness), colour))
    for outline, colour in outlines:
        painted[outline] = colour
    return painted


def _missing(groundings: Sequence[Grounding]) -> str:
    absent = [f"no {head(grounding.phrase)}" for grounding in groundings if grounding.absent]
    unanswered = [f"{grounding.phrase} unanswered" for grounding in groundings if grounding.invalid]
    return ", ".join(absent + unanswered)
