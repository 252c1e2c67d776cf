"""All cut-outs of one name as one picture: the kept ones first, the best in front, then the refused ones and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wherein import images
from wherein.errors import ImageError
from wherein.synth.choosing import Chosen
from wherein.synth.making import Outcome

if TYPE_CHECKING:
    from PIL import Image

COLUMNS, MOST = 10, 120
"""Most cut-outs in a row of a sheet, and on all of it."""
_CELL, _GAP, _CAPTION, _TITLE = 120, 8, 18, 34  # pixels
_PAPER, _INK, _KEPT, _REFUSED = "#FFFFFF", "#202020", "#009E73", "#D55E00"
_SQUARES = (236, 206)  # greys of the chequers that say "transparent"


def sheet(chosen: Chosen, out: Path) -> NDArray[np.uint8]:
    """The sheet of a name, uint8[H, W, 3]; the cut-outs are files below `out`."""
    from PIL import Image, ImageDraw

    from wherein.drawing import load_font, shorten

    cells: list[tuple[Outcome, str | None]] = [(outcome, None) for outcome in chosen.kept]
    cells += [(outcome, why) for outcome, why in chosen.refused if outcome.file is not None]
    shown = cells[:MOST]
    columns, rows = min(COLUMNS, max(5, len(shown))), max(1, -(-len(shown) // COLUMNS))
    step_x, step_y = _CELL + _GAP, _CELL + _CAPTION + _GAP
    page = Image.new("RGB", (columns * step_x + _GAP, _TITLE + rows * step_y), _PAPER)
    pen, font, small = ImageDraw.Draw(page), load_font(17), load_font(12)
    pen.text((_GAP, _GAP), _title(chosen, len(cells)), font=font, fill=_INK)
    for place, (outcome, why) in enumerate(shown):
        left, top = _GAP + place % COLUMNS * step_x, _TITLE + place // COLUMNS * step_y
        page.paste(_cell(outcome, out), (left, top))
        colour = _KEPT if why is None else _REFUSED
        pen.rectangle((left, top, left + _CELL - 1, top + _CELL - 1), outline=colour, width=2)
        score = "" if outcome.score is None else f" {outcome.score:.1f}"
        caption = shorten(why or "kept", score, lambda text: small.getlength(text) <= _CELL)
        pen.text((left, top + _CELL + 1), caption, font=small, fill=colour)
    return np.asarray(page)


def _title(chosen: Chosen, cut: int) -> str:
    made = len(chosen.kept) + len(chosen.refused)
    bar = "" if chosen.bar is None else f", CLIP score from {chosen.bar:.1f}"
    dropped = ": too few, dropped" if chosen.dropped else ""
    more = f" (the first {MOST} shown)" if cut > MOST else ""
    return f"{chosen.name}: {len(chosen.kept)} kept of {made}{bar}{dropped}{more}"


def _cell(outcome: Outcome, out: Path) -> Image.Image:
    """A cut-out on chequers, in the middle of its cell; a file that is gone leaves the chequers."""
    from PIL import Image

    y, x = np.mgrid[:_CELL, :_CELL] // 8
    ground = Image.fromarray(np.where((x + y) % 2, *_SQUARES).astype(np.uint8)).convert("RGB")
    try:
        cutout = Image.fromarray(images.load(out / str(outcome.file), alpha=True))
    except ImageError:
        return ground
    cutout.thumbnail((_CELL - 6, _CELL - 6), reducing_gap=2.0)
    ground.paste(cutout, ((_CELL - cutout.width) // 2, (_CELL - cutout.height) // 2), cutout)
    return ground
