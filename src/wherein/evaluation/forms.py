"""The forms in which models write a box: each finds the first four numbers that an answer gives as one.

`wherein.boxtext` reads what our own prompts and grammars make a model write; here is what models write of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wherein.boxtext import parse_box
from wherein.geometry import clip, from_xywh

MOST = 20_000  # characters of an answer that are looked at


@dataclass(frozen=True)
class Convention:
    """What a model means by four bare numbers.

    unit: the number that stands for a whole side; None means that the numbers are pixels of the picture it is given ·
    y_first: y0, x0, y1, x1 instead of x0, y0, x1, y1.
    """

    unit: int | None = None
    y_first: bool = False

    def __str__(self) -> str:
        """Its name, as in `CONVENTIONS`."""
        name = "pixels" if self.unit is None else f"0-{self.unit}"
        return f"{name}-y-first" if self.y_first else name

    def box(self, numbers: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64] | None:
        """Numbers float64[4] as a box float64[4], xyxy in pixels of a `width` x `height` picture, cut to it.

        None when the corners are not in order or nothing of the box is inside the picture.
        """
        x0, y0, x1, y1 = corners = numbers[[1, 0, 3, 2]] if self.y_first else numbers
        if not (np.isfinite(numbers).all() and x1 > x0 and y1 > y0):
            return None
        sides = np.array([width, height, width, height])
        x0, y0, x1, y1 = box = clip([corners if self.unit is None else corners * sides / self.unit], width, height)[0]
        return box if x1 > x0 and y1 > y0 else None


PIXELS, THOUSANDTHS = Convention(), Convention(1000)
CONVENTIONS = {
    str(convention): convention
    for convention in (PIXELS, Convention(1), Convention(100), THOUSANDTHS, replace(THOUSANDTHS, y_first=True))
}
"""The conventions that a caller can name."""


@dataclass(frozen=True, eq=False)
class Written:
    """Four numbers float64[4] that an answer gives as a box.

    form: one of `FORMS`, or "box_2d", a list under that key · own: what the numbers mean, where the form says so ·
    named: the form names each number, so they are x0, y0, x1, y1 whatever the convention.
    """

    numbers: NDArray[np.float64]
    form: str
    own: Convention | None = None
    named: bool = False

    @property
    def fractions(self) -> bool:
        """Whether the numbers are fractions of the sides: none is above 1, and a box of one pixel is no answer."""
        return self.own is None and bool((np.abs(self.numbers) <= 1).all())

    @property
    def bare(self) -> bool:
        """Whether only a convention says what the numbers mean."""
        return self.own is None and not self.fractions

    def meaning(self, convention: Convention) -> Convention:
        """What the numbers mean: what their form says, else fractions, else the model's convention."""
        if self.own is not None:
            return self.own
        unit = 1 if self.fractions else convention.unit
        return Convention(unit, convention.y_first and not self.named)


def written(text: str) -> Written | None:
    """The first four numbers that an answer gives as a box, in the first of `FORMS` that it holds; None without any."""
    tidy = _tidied(text[:MOST])
    return next((found for find in FORMS.values() if (found := find(tidy)) is not None), None)


_NUMBER = r"(-?\d+(?:\.\d+)?)"
_PAIR = rf"[\[(]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[\])]"
_CORNERS = re.compile(rf"{_PAIR}\s*(?:,|;|-|to|and)?\s*{_PAIR}")
_MARKED = re.compile(  # Qwen-VL and Qwen2-VL, InternVL, DeepSeek-VL2
    rf"(?:<\|box_start\|>|<box>|<\|det\|>)[\s\[(]*{_NUMBER}\s*,\s*{_NUMBER}[\s\])]*,[\s\[(]*{_NUMBER}\s*,\s*{_NUMBER}"
)
_NAMED = re.compile(
    rf"\b(x_?min|y_?min|x_?max|y_?max|[xy][012]|x|y|w|h|width|height|left|top|right|bottom)\b[\"']?\s*[:=]\s*{_NUMBER}",
    re.IGNORECASE,
)
_CORNER_NAMES = ("xmin ymin xmax ymax", "x0 y0 x1 y1", "x1 y1 x2 y2", "left top right bottom")
_SIDE_NAMES = ("x y width height", "x y w h", "left top width height", "x0 y0 width height", "xmin ymin width height")
_ALONE = re.compile(rf"\s*{_NUMBER}" + rf"(?:\s*,\s*|\s+){_NUMBER}" * 3 + r"\s*\.?\s*")
_GRID = 32  # Kosmos-2's patches a side


def _tidied(text: str) -> str:
    """Numbers without quotes and units, with a zero before the point: "10", 10px, .5 -> 10, 10, 0.5."""
    text = re.sub(r"([\"'])(-?[\d.]+)\1", r"\2", text)
    text = re.sub(r"(\d)\s?(?:px|pixels?)\b", r"\1", text)
    return re.sub(r"(?<![\w.])(-?)\.(?=\d)", r"\g<1>0.", text)


def _numbers(found: re.Match[str]) -> NDArray[np.float64]:
    return np.array([float(number) for number in found.groups()])


def _paligemma(text: str) -> Written | None:
    """Four `<loc0123>`: y0, x0, y1, x1 in 1024ths."""
    found = re.search(r"<loc(\d{4})>" * 4, text)
    return found and Written(_numbers(found), "loc0000", Convention(1024, y_first=True))


def _florence(text: str) -> Written | None:
    """Four `<loc_12>`: x0, y0, x1, y1 as the middles of a thousand bins."""
    found = re.search(r"<loc_(\d{1,3})>" * 4, text)
    return found and Written(_numbers(found) + 0.5, "loc_0", THOUSANDTHS)


def _kosmos(text: str) -> Written | None:
    """Two `<patch_index_0044>`: the patches of two corners, from middle to middle.

    Where they lie in one row or column the box takes their outer edges, as the model's own processor has it.
    """
    found = re.search(r"<patch_index_(\d{4})>" * 2, text)
    if found is None:
        return None
    (y0, x0), (y1, x1) = (divmod(int(index), _GRID) for index in found.groups())
    inset = 0.0 if x0 == x1 or y0 == y1 else 0.5
    corners = np.array([x0 + inset, y0 + inset, x1 + 1 - inset, y1 + 1 - inset])
    return Written(corners, "patch_index", Convention(_GRID))


def _marked(text: str) -> Written | None:
    """Four numbers behind a marker that models were trained to write: thousandths, unless they are fractions."""
    found = _MARKED.search(text)
    if found is None:
        return None
    plain = Written(_numbers(found), "marked")
    return plain if plain.fractions else replace(plain, own=THOUSANDTHS)


def _named(text: str) -> Written | None:
    """Four numbers with their names, in JSON or in prose: x_min ..., left ..., x, y, width, height."""
    given: dict[str, float] = {}
    for name, number in _NAMED.findall(text):
        given.setdefault(name.lower().replace("_", ""), float(number))
    for names in (*_CORNER_NAMES, *_SIDE_NAMES):
        if all(name in given for name in names.split()):
            box = np.array([given[name] for name in names.split()])
            return Written(box if names in _CORNER_NAMES else from_xywh([box])[0], "named", named=True)
    return None


def _list(text: str) -> Written | None:
    """`[x0, y0, x1, y1]`, with square or round brackets, in JSON or not."""
    box = parse_box(text.replace("(", "[").replace(")", "]"))
    return None if box is None else Written(box, "box_2d" if re.search(r"\bbox_2d\b", text) else "list")


def _corners(text: str) -> Written | None:
    """`(x0, y0), (x1, y1)`."""
    found = _CORNERS.search(text)
    return found and Written(_numbers(found), "corners")


def _alone(text: str) -> Written | None:
    """Four numbers and nothing else."""
    found = _ALONE.fullmatch(text)
    return found and Written(_numbers(found), "numbers")


FORMS: dict[str, Callable[[str], Written | None]] = {
    "loc0000": _paligemma,
    "loc_0": _florence,
    "patch_index": _kosmos,
    "marked": _marked,
    "named": _named,
    "list": _list,
    "corners": _corners,
    "numbers": _alone,
}
"""The forms by name, in the order in which they are looked for."""
