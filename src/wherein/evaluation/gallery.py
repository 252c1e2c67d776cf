"""Picture sheets of an evaluation: for each method its best, median and worst answers beside the truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wherein import images, pictures
from wherein.drawing import draw_boxes, load_font, shorten
from wherein.evaluation.records import Outcome, Record

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 5
"""Pictures in each of the three rows of a sheet."""
_TRUTH, _PREDICTION, _PAPER, _INK = "#009E73", "#D55E00", "#FFFFFF", "#202020"
_CELL, _CAPTION, _MARGIN, _TITLE = 300, 26, 8, 34  # pixels: side of a picture, height of its caption, gaps, head line

Picked = tuple[str, Record]
"""An image and one record of it."""


def save_gallery(outcomes: Sequence[Outcome], paths: Mapping[str, Path], folder: Path) -> list[Path]:
    """Write one sheet `<method>.png` for each method into a folder; returns their paths.

    `paths` tells where the images of the outcomes are.

    Raises:
        InputError: the folder cannot be written to, or an image cannot be read any more.
    """
    written = []
    for method in dict.fromkeys(outcome.method for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.method == method]
        answers = [(outcome.image, record) for outcome in own for record in outcome.records]
        written.append(folder / f"{method}.png")
        pictures.write(written[-1], np.asarray(sheet(method, pick(answers), paths)))
    return written


def pick(answers: Sequence[Picked]) -> dict[str, list[Picked]]:
    """At most `COLUMNS` answers each of the highest, the middle and the lowest IoU; none is picked twice."""
    ranked = sorted(answers, key=lambda answer: -answer[1].iou)
    worst_from = max(COLUMNS, len(ranked) - COLUMNS)
    between = ranked[COLUMNS:worst_from]
    middle = max(0, (len(between) - COLUMNS) // 2)
    return {
        "best": ranked[:COLUMNS],
        "median": between[middle : middle + COLUMNS],
        "worst": ranked[worst_from:],
    }


def sheet(method: str, rows: Mapping[str, Sequence[Picked]], paths: Mapping[str, Path]) -> "Image.Image":
    """The picked answers as one picture: a row for each entry of `rows`, the phrase and the IoU under each image."""
    from PIL import Image, ImageDraw

    step_x, step_y = _CELL + _MARGIN, _CELL + _CAPTION + _TITLE
    page = Image.new("RGB", (COLUMNS * step_x + _MARGIN, len(rows) * step_y + _TITLE), _PAPER)
    pen, font, small = ImageDraw.Draw(page), load_font(18), load_font(15)
    pen.text((_MARGIN, _MARGIN), f"{method}:", font=font, fill=_INK)
    start = _MARGIN + font.getlength(f"{method}: ")
    pen.text((start, _MARGIN), "truth", font=font, fill=_TRUTH)
    pen.text((start + font.getlength("truth "), _MARGIN), "prediction", font=font, fill=_PREDICTION)
    for row, (title, answers) in enumerate(rows.items()):
        top = _TITLE + row * step_y
        pen.text((_MARGIN, top + _MARGIN), title, font=font, fill=_INK)
        for column, (name, record) in enumerate(answers):
            left = _MARGIN + column * step_x
            picture = _picture(paths[name], record)
            page.paste(picture, (left, top + _TITLE + _CELL - picture.height))
            verdict = f"  IoU {record.iou:.2f}" if record.prediction else "  no answer"
            caption = shorten(record.phrase, verdict, lambda text: small.getlength(text) <= _CELL)
            pen.text((left, top + _TITLE + _CELL + 2), caption, font=small, fill=_INK)
    return page


def _picture(path: Path, record: Record) -> "Image.Image":
    """The image as large as a cell allows, with the true box and on it the predicted one."""
    from PIL import Image

    picture = Image.fromarray(images.load(path))
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    for box, colour in ((record.truth, _TRUTH), (record.prediction, _PREDICTION)):
        if box is not None:
            draw_boxes(picture, np.array([box]) * scale, colour)
    return picture
