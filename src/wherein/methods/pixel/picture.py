"""Captions drawn on their image: the trace of one along its sentence, and captions of places on their boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wherein.drawing import draw, draw_boxes, load_font
from wherein.grounding import Grounding
from wherein.methods.pixel.captions import Caption, Region

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

COLOURS = ("plasma", 0.05, 0.9)  # a map of matplotlib's, and the part of it: its ends are too dark and too light
_PAPER, _INK, _LIGHT = "#FFFFFF", "#202020", "#FFFFFF"
_NARROWEST = 480  # pixels of width; a smaller image is shown larger, so that the sentence under it can be read
_DOT = 0.01  # of the square root of the image's area: the radius of a word's dot
_ROUND = 4  # pixels around a word on its colour
_MARK = 0.025  # the same, half the side of the square that stands for a point


def draw_trace(image: NDArray[np.uint8], caption: Caption) -> NDArray[np.uint8]:
    """uint8[H', W', 3]: an image uint8[H, W, 3] with the places of a caption's words on it, and the caption under it.

    Colours go from the first word that speaks of something to the last, in the picture and in the sentence: each such
    word has a dot, a line to the next one's, and its box where it has one.
    """
    from PIL import Image

    scale = max(1.0, _NARROWEST / image.shape[1])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    shown = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    colours = dict(zip([word.start for word in caption.trace], _gradient(len(caption.trace)), strict=True))
    _draw_path(shown, caption, colours, scale)
    text = _sentence(caption, colours, *size)
    sheet = Image.new("RGB", (size[0], size[1] + text.height), _PAPER)
    sheet.paste(shown, (0, 0))
    sheet.paste(text, (0, size[1]))
    return np.array(sheet)


def draw_regions(image: NDArray[np.uint8], regions: Sequence[Region]) -> NDArray[np.uint8]:
    """A copy uint8[H, W, 3] of an image with the captions of its regions on their boxes; a point is a small square."""
    reach = _MARK * math.sqrt(image.shape[0] * image.shape[1])
    drawn = []
    for region in regions:
        box = np.concatenate([region.place - reach, region.place + reach]) if region.box is None else region.box
        score = np.array([region.score])
        drawn.append(Grounding(region.caption.text.strip(), box[None], score, region.score_kind, False, None))
    return draw(image, drawn)


def _gradient(count: int) -> list[str]:
    """So many colours, from the start of a sentence to its end."""
    import matplotlib
    from matplotlib.colors import to_hex

    name, first, last = COLOURS
    return [to_hex(colour) for colour in matplotlib.colormaps[name](np.linspace(first, last, count))]


def _draw_path(shown: Image.Image, caption: Caption, colours: dict[int, str], scale: float) -> None:
    """Boxes first, then a line from word to word, then the dots."""
    from PIL import ImageDraw

    pen, radius = ImageDraw.Draw(shown), max(3.0, _DOT * math.sqrt(shown.width * shown.height))
    for word in caption.trace:
        if word.box is not None:
            draw_boxes(shown, word.box[None] * scale, _LIGHT, round(radius / 3) + 2)
            draw_boxes(shown, word.box[None] * scale, colours[word.start], max(1, round(radius / 3)))
    points = [(float(word.point[0]) * scale, float(word.point[1]) * scale) for word in caption.trace]
    for word, start, end in zip(caption.trace[1:], points, points[1:], strict=False):
        pen.line([start, end], fill=_LIGHT, width=round(radius) + 2)
        pen.line([start, end], fill=colours[word.start], width=round(radius))
    for word, (x, y) in zip(caption.trace, points, strict=True):
        edge = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(edge, fill=colours[word.start], outline=_LIGHT, width=max(1, round(radius / 4)))


def _sentence(caption: Caption, colours: dict[int, str], width: int, height: int) -> Image.Image:
    """The caption on paper of this width, in as many lines as it takes; a word with a colour stands on it."""
    from PIL import Image, ImageDraw

    font = load_font(max(15, round(math.sqrt(width * height) / 32)))
    line = round(sum(font.getmetrics()) * 1.3)
    placed = _set(caption, colours, font, width - line)
    rows = 1 + max((row for _, _, row, _ in placed), default=0)
    paper = Image.new("RGB", (width, rows * line + line), _PAPER)
    pen = ImageDraw.Draw(paper)
    for text, left, row, colour in placed:
        _write(pen, text, (left + line / 2, row * line + line / 2), colour, font)
    return paper


def _set(
    caption: Caption, colours: dict[int, str], font: ImageFont.FreeTypeFont, width: float
) -> list[tuple[str, float, int, str | None]]:
    """The caption's pieces between white space, each with its left edge (pixels), its line, and its colour."""
    placed, left, row, at = list[tuple[str, float, int, str | None]](), 0.0, 0, 0
    gap = font.getlength(" ") + 2 * _ROUND
    for piece in caption.text.split():
        at = caption.text.index(piece, at)
        colour = next((colours[start] for start in range(at, at + len(piece)) if start in colours), None)
        needs, at = font.getlength(piece), at + len(piece)
        if left and left + needs > width:
            left, row = 0.0, row + 1
        placed.append((piece, left, row, colour))
        left += needs + gap
    return placed


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: str | None,
    font: ImageFont.FreeTypeFont,
) -> None:
    """One piece of the sentence, on its colour if it has one."""
    from PIL import ImageColor

    if colour is not None:
        left, top = corner
        around = (left - _ROUND, top - 1, left + font.getlength(text) + _ROUND, top + sum(font.getmetrics()) + 1)
        pen.rounded_rectangle(around, radius=_ROUND, fill=colour)
    bright = colour is not None and np.dot(ImageColor.getrgb(colour)[:3], (0.299, 0.587, 0.114)) > 150
    pen.text(corner, text, fill=_INK if colour is None or bright else _LIGHT, font=font)
