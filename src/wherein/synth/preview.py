"""Composites as one picture: each with its boxes, and under it what is asked about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wherein.synth.scene import Scene

COLUMNS = 4
"""Composites in a row."""
_PANEL, _GAP, _TEXT = 320, 20, 15  # pixels
_PAPER, _INK = "#FFFFFF", "#202020"
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")  # of wherein.drawing, those that are also read as text


def preview(scenes: Sequence[Scene]) -> NDArray[np.uint8]:
    """A sheet uint8[H, W, 3] of scenes. Each object has a colour for its box and for its longest phrase under the
    image, or its name in parentheses where no phrase is true of it alone; what is absent comes last."""
    from PIL import Image, ImageDraw

    from wherein.drawing import draw_boxes, load_font, shorten

    font = load_font(_TEXT)
    line = sum(font.getmetrics())
    lines = 1 + max(len(scene.composite.objects) for scene in scenes)
    columns = min(COLUMNS, len(scenes))
    step_x, step_y = _PANEL + _GAP, _PANEL + _GAP + lines * line + line // 2
    sheet = Image.new("RGB", (columns * step_x + _GAP, -(-len(scenes) // columns) * step_y + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, scene in enumerate(scenes):
        left, top = _GAP + place % columns * step_x, _GAP + place // columns * step_y
        scale = _PANEL / scene.composite.image.shape[0]
        panel = Image.fromarray(scene.composite.image).resize((_PANEL, _PANEL), Image.Resampling.BICUBIC)
        for order, (thing, phrases) in enumerate(zip(scene.composite.objects, scene.phrases, strict=True)):
            colour = _COLOURS[order % len(_COLOURS)]
            draw_boxes(panel, thing.box[None] * scale, colour, 3)
            text = shorten(max(phrases, key=len, default=f"({thing.name})"), "", lambda t: font.getlength(t) <= _PANEL)
            pen.text((left, top + _PANEL + line // 4 + order * line), text, font=font, fill=colour)
        if scene.absent:
            text = shorten(f"no {scene.absent}", "", lambda t: font.getlength(t) <= _PANEL)
            bottom = top + _PANEL + line // 4 + len(scene.composite.objects) * line
            pen.text((left, bottom), text, font=font, fill=_INK)
        sheet.paste(panel, (left, top))
    return np.asarray(sheet)
