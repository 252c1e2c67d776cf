"""Heat maps laid over their image: one panel a phrase, as a figure for a paper.

Notable choices:
- the image under a heat map is dim grey, so that colour means evidence and nothing else
- the stronger the evidence the more opaque its colour, but never so opaque that the object under it is lost
- the colour bar shows the colours as they are seen, over grey, not as they are in the colour map
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wherein.drawing import draw_boxes, load_font, shorten
from wherein.grounding import Grounding, score_text
from wherein.phrases import head

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

WIDEST = 2400
"""Pixels; no sheet is wider."""
COLUMNS = 4
"""Panels in a row at most."""
_SHAPE = 3 / 2  # width to height of a sheet, as nearly as its panels allow
_TALLEST, _LONGER_SIDE, _NARROWEST = 1600, 320, 240  # pixels: of a panel at most, at least; of the place of a caption
_GAP = 24  # pixels between panels and around them
_LINES = 3  # of a caption, at most
_PAPER, _INK, _BOX, _BOX_EDGE = "#FFFFFF", "#202020", "#00E5FF", "#101010"
_DARKEST, _BRIGHTEST = 30, 180  # grey levels of the dimmed image
_OPACITY = 0.68  # at the peak

Floats = NDArray[np.float32]


def heat_sheet(image: NDArray[np.uint8], groundings: Sequence[Grounding]) -> NDArray[np.uint8]:
    """A sheet uint8[H', W', 3], at most `WIDEST` wide, of the heat maps of groundings on an image uint8[H, W, 3].

    Each phrase with a heat map has a panel: the image in dim grey, the heat map in colour over it, and the boxes. Under
    it are the phrase with its best score ("no unicorn" where it is absent, "unicorn unanswered" where the answer was
    invalid) and the scale of the colours, from 0 (or the lowest value, where that is negative) to the highest value of
    this heat map; what is not finite counts as the lowest. Huge images are shown smaller, tiny ones larger.

    Raises:
        ValueError: no grounding has a heat map.
    """
    from PIL import Image, ImageDraw

    shown = [(grounding, grounding.heatmap) for grounding in groundings if grounding.heatmap is not None]
    if not shown:
        raise ValueError("none of the groundings has a heat map: the method that made them gives boxes alone")
    height, width = image.shape[:2]
    grid = _best_grid(width, height, [_caption(grounding) for grounding, _ in shown])
    sheet = Image.new("RGB", grid.size, _PAPER)
    pen, grey = ImageDraw.Draw(sheet), _grey(image, *grid.panel)
    for index, (grounding, heatmap) in enumerate(shown):
        left, top = grid.corner(index)
        heat, low, high = _finite(heatmap)
        panel = _panel(grey, _strength(_smooth(heat, *grid.panel), low, high))
        _outline(panel, grounding.boxes * ([panel.width / width, panel.height / height] * 2))
        sheet.paste(panel, (left + (grid.cell - panel.width) // 2, top))
        top += panel.height + grid.line // 4
        _colour_bar(sheet, pen, grid, (left, top), (f"{low:.3g}", f"{high:.3g}"))
        for line, text in enumerate(grid.captions[index], start=1):
            pen.text((left, top + line * grid.line), text, fill=_INK, font=grid.font)
    return np.array(sheet)


@dataclass(frozen=True)
class _Grid:
    """The places of a sheet, in its pixels.

    Attributes:
        columns: panels in a row.
        panel: width and height of an image in the sheet.
        cell: width of a panel's place, which its caption fills.
        font: of captions and numbers.
        captions: the lines under each panel.
    """

    columns: int
    panel: tuple[int, int]
    cell: int
    font: "ImageFont.FreeTypeFont"
    captions: list[list[str]]

    @property
    def line(self) -> int:
        """Height of a line of text."""
        return sum(self.font.getmetrics())

    @property
    def rows(self) -> int:
        """Rows of panels."""
        return math.ceil(len(self.captions) / self.columns)

    @property
    def step(self) -> tuple[int, int]:
        """From a panel to the next one on its right, and below: between rows lie a colour bar and the captions."""
        lines = 1 + max(len(caption) for caption in self.captions)
        return self.cell + _GAP, self.panel[1] + lines * self.line + self.line // 2 + _GAP

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        return self.columns * self.step[0] + _GAP, self.rows * self.step[1] + _GAP

    @property
    def misfit(self) -> float:
        """How far the sheet is from `_SHAPE`, and how much of it is left empty, which looks worse."""
        width, height = self.size
        empty = 1 - len(self.captions) / (self.rows * self.columns)
        return abs(math.log(width / height / _SHAPE)) + 2 * empty

    def corner(self, index: int) -> tuple[int, int]:
        """The top left corner of a panel's place."""
        row, column = divmod(index, self.columns)
        return _GAP + column * self.step[0], _GAP + row * self.step[1]


def _best_grid(width: int, height: int, captions: Sequence[tuple[str, str]]) -> _Grid:
    """The grid for an image of this size that fits best."""
    grids = [_grid(columns, width, height, captions) for columns in range(1, min(COLUMNS, len(captions)) + 1)]
    return min(grids, key=lambda grid: grid.misfit)


def _grid(columns: int, width: int, height: int, captions: Sequence[tuple[str, str]]) -> _Grid:
    room = (WIDEST - _GAP) // columns - _GAP
    scale = min(room / width, _TALLEST / height, max(1, _LONGER_SIDE / max(width, height)))
    panel = max(1, round(width * scale)), max(1, round(height * scale))
    cell = max(_NARROWEST, panel[0])
    font = load_font(max(14, cell // 60, min(cell // 22, panel[1] // 4, 54)))
    return _Grid(columns, panel, cell, font, [_wrap(text, tail, font, cell) for text, tail in captions])


def _caption(grounding: Grounding) -> tuple[str, str]:
    """What stands under a panel, and its end, which is not to be cut."""
    if grounding.absent:
        return f"no {head(grounding.phrase)}", ""
    return grounding.phrase, " unanswered" if grounding.invalid else f" {score_text(grounding.scores[0])}"


def _wrap(text: str, tail: str, font: "ImageFont.FreeTypeFont", width: int) -> list[str]:
    """`text + tail` in at most `_LINES` lines of this width (pixels), the last one cut where it does not fit."""

    def fits(part: str) -> bool:
        """Whether a text is no wider than a line."""
        return font.getlength(part) <= width

    lines: list[str] = []
    words = text.split()
    while not fits(" ".join(words) + tail) and len(lines) < _LINES - 1:
        kept = max((count for count in range(1, len(words) + 1) if fits(" ".join(words[:count]))), default=0)
        if kept == 0:
            break
        lines.append(" ".join(words[:kept]))
        words = words[kept:]
    return [*lines, shorten(" ".join(words), tail, fits).strip()]


def _finite(heatmap: Floats) -> tuple[Floats, float, float]:
    """A heat map float32[h, w] without values that are not finite, and the two ends of its scale."""
    heat = np.asarray(heatmap, dtype=np.float32)
    known = heat[np.isfinite(heat)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    low = min(0.0, low)
    return np.where(np.isfinite(heat), heat, np.float32(low)), low, high


def _smooth(heat: Floats, width: int, height: int) -> Floats:
    """A heat map float32[h, w] over the whole image as float32[height, width], never beyond its own range."""
    from PIL import Image

    resized = Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(resized), heat.min(), heat.max()))


def _strength(heat: Floats, low: float, high: float) -> Floats:
    """Evidence as 0..1 between the ends of its scale; 0 everywhere where the two are the same."""
    return np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)


def _grey(image: NDArray[np.uint8], width: int, height: int) -> Floats:
    """The image uint8[H, W, 3] at this size in dim grey, float32[height, width]."""
    from PIL import Image

    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    luminance = np.asarray(resized.convert("L"), dtype=np.float32) / 255
    return np.asarray(_DARKEST + luminance * (_BRIGHTEST - _DARKEST), dtype=np.float32)


def _panel(grey: Floats, strength: Floats) -> "Image.Image":
    """Evidence 0..1, float32[h, w], in colour over a grey image float32[h, w]."""
    import matplotlib
    from PIL import Image

    levels = np.linspace(0, 1, 256, dtype=np.float32)
    colours = 255 * matplotlib.colormaps["inferno"](levels)[:, :3].astype(np.float32)
    opacity = _OPACITY * levels[:, None]
    level = np.rint(255 * strength).astype(np.uint8)
    blended = (1 - opacity)[level] * grey[..., None] + (opacity * colours)[level]
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def _outline(panel: "Image.Image", boxes: NDArray[np.float64]) -> None:
    """Draw boxes float64[K, 4] (pixels of the panel) in a thin line that is seen on any heat."""
    thickness = max(2, round(math.sqrt(panel.width * panel.height) / 300))
    draw_boxes(panel, boxes, _BOX_EDGE, thickness + 2)
    draw_boxes(panel, boxes, _BOX, thickness)


def _colour_bar(
    sheet: "Image.Image", pen: "ImageDraw.ImageDraw", grid: _Grid, corner: tuple[int, int], ends: tuple[str, str]
) -> None:
    """The scale of the colours between the two values at its ends, one line high and as wide as a cell."""
    left, top = corner
    before, after = (math.ceil(grid.font.getlength(f"{end} ")) for end in ends)
    width, height = max(1, grid.cell - before - after), max(4, grid.line // 3)
    strength = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    bar = _panel(np.full_like(strength, (_DARKEST + _BRIGHTEST) / 2), strength)
    sheet.paste(bar, (left + before, top + (grid.line - height) // 2))
    pen.text((left, top), ends[0], fill=_INK, font=grid.font)
    pen.text((left + grid.cell, top), ends[1], fill=_INK, font=grid.font, anchor="ra")
