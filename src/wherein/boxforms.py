"""The forms in which models write a box: each finds the first four numbers that an answer gives as one.

`wherein.boxtext` reads what our own prompts and grammars make a model write; here is what models write of their own.
Numbers whose corners are not in order, such as the placeholder [0, 0, 0, 0], are passed over for later ones that are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

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


def native(description: str) -> Convention | None:
    """The convention in a family's description of the boxes it was trained to write (`FrozenVLM.native`), if it has
    one: "in 0..1000", "in 0..1023, y first", "in pixels of the resized image".
    """
    unit = re.search(r"in 0\.\.(\d+)", description)
    if unit is not None:
        return Convention(int(unit[1]), "y first" in description)
    return PIXELS if "in pixels" in description else None


@dataclass(frozen=True, eq=False)
class Written:
    """Four numbers float64[4] that an answer gives as a box.

    form: one of `FORMS`, or "box_2d", a list under that key · own: what the numbers mean, where the form says so ·
    named: the form names each number, so they are x0, y0, x1, y1 whatever the convention · percent: each is one of a
    side, by its sign.
    """

    numbers: NDArray[np.float64]
    form: str
    own: Convention | None = None
    named: bool = False
    percent: bool = False

    @property
    def unit(self) -> int | None:
        """The number that stands for a whole side, where the numbers say so themselves: 100 by their sign; 1 where none
        is above 1, as a box of one pixel is no answer."""
        if self.percent:
            return 100
        return 1 if (np.abs(self.numbers) <= 1).all() else None

    @property
    def bare(self) -> bool:
        """Whether only a convention says what the numbers mean."""
        return self.own is None and self.unit is None

    def meaning(self, convention: Convention) -> Convention:
        """What the numbers mean: what their form says, else what they say, else the model's convention."""
        if self.own is not None:
            return self.own
        return Convention(self.unit or convention.unit, convention.y_first and not self.named)


def written(text: str) -> Written | None:
    """The first four numbers that an answer gives as a box, in the first of `FORMS` that it holds; None without any."""
    tidy = _tidied(text[:MOST])
    return next((found for find in FORMS.values() if (found := find(tidy)) is not None), None)


_DIGITS = r"-?\d++(?:\.\d++)?+%?"
_NUMBER = rf"({_DIGITS})"
_SPLIT = "(?: ?[,;] ?| )"  # between two numbers of a list
_POINT = rf"(?:x ?[:=] ?)?{_NUMBER}{_SPLIT}(?:y ?[:=] ?)?{_NUMBER}"
_PAIR = rf"[\[(] ?{_POINT} ?[\])]"
_LIST = re.compile(rf"[\[(] ?{_NUMBER}" + rf"{_SPLIT}{_NUMBER}" * 3 + r" ?,? ?[\])](%?)")
_FAR = r"[^\d\[\]()]{0,60}?(?:bottom|lower)[^\d\[\]()]{0,60}?"  # the words before a second corner
_CORNERS = (
    re.compile(rf"{_PAIR} ?(?:,|;|-|to|and)? ?{_PAIR}", re.IGNORECASE),
    re.compile(rf"(?<![\w.-]){_POINT} ?[\])]?{_FAR}[\[(]? ?{_POINT}", re.IGNORECASE),
)
_MARKED = re.compile(  # Qwen-VL and Qwen2-VL, InternVL, DeepSeek-VL2
    rf"(?:<\|box_start\|>|<box>|<\|det\|>)[ \[(]*{_NUMBER}" + rf"[ ,;\[\]()]+{_NUMBER}" * 3
)
_NAMED = re.compile(
    r"\b(x_?min|y_?min|x_?max|y_?max|[xy][012]|x|y|w|h|width|height|left|top|right|bottom)\b"
    rf"[\"']? ?(?:[:=]|\b(?:is|of|at)\b) ?{_NUMBER}",
    re.IGNORECASE,
)
_CORNER_NAMES = ("xmin ymin xmax ymax", "x0 y0 x1 y1", "x1 y1 x2 y2", "left top right bottom")
_SIDE_NAMES = ("x y width height", "x y w h", "left top width height", "x0 y0 width height", "xmin ymin width height")
_ROW = re.compile(rf"(?<![\w.-]){_DIGITS}(?:(?: ?, ?| )(?:and )?{_DIGITS})*(?!\w)")
_GRID = 32  # Kosmos-2's patches a side
_EMPHASIS = re.compile(r"`|\*{2,}|(?<!\d)(?<!\d\s)\*|\*(?!\s?\d)")  # of Markdown; 640*480 has none


def _tidied(text: str) -> str:
    """Single spaces, numbers without quotes and pixels, with a zero before the point: "10", 10px, .5 -> 10, 10, 0.5.

    A percent sign stands behind its number, or behind the bracket of all: 10 percent -> 10%. Markdown's emphasis
    goes, and a rough number counts as it stands: **x:** 10, x ≈ 10, x = ~10 -> x: 10, x = 10, x = 10.
    """
    text = re.sub(r"\s+", " ", _EMPHASIS.sub(" ", text))
    text = re.sub(r"(?<=[\[(,:=]) ?[≈~]", "", text)
    text = re.sub(r"[≈~]", "=", text)
    text = re.sub(r"([\d\])]) ?(?:%|per ?cent\b)", r"\1%", text)
    text = re.sub(r"([\"'])(-?[\d.]+%?)\1", r"\2", text)
    text = re.sub(r"(\d) ?(?:px|pixels?)\b", r"\1", text)
    return re.sub(r"(?<![\w.])(-?)\.(?=\d)", r"\g<1>0.", text)


def _given(numbers: Sequence[str], form: str, sides: bool = False) -> Written | None:
    """Four numbers as they are written: two corners, or one corner and the `sides`.

    None if the corners are not in order, or some of the numbers are percents and some not.
    """
    signs = {number.endswith("%") for number in numbers}
    values = np.array([float(number.rstrip("%")) for number in numbers])
    x0, y0, x1, y1 = box = from_xywh([values])[0] if sides else values
    if len(signs) > 1 or not (np.isfinite(box).all() and x1 > x0 and y1 > y0):
        return None
    return Written(box, form, percent=signs == {True})


def _first(pattern: re.Pattern[str], text: str, form: str) -> Written | None:
    """The first match of a pattern whose first four groups are a box; a fifth is the percent sign of all."""
    for found in pattern.finditer(text):
        box = _given(found.groups()[:4], form)
        if box is not None:
            return replace(box, percent=box.percent or any(found.groups()[4:]))
    return None


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
    """Four numbers behind a marker that models were trained to write: thousandths, unless they say else."""
    found = _first(_MARKED, text, "marked")
    return replace(found, own=THOUSANDTHS) if found is not None and found.unit is None else found


def _named(text: str) -> Written | None:
    """Four numbers with their names, in JSON or in prose: x_min ..., left ..., x, y, width, height."""
    given: dict[str, list[str]] = defaultdict(list)
    for name, number in _NAMED.findall(text):
        given[name.lower().replace("_", "")].append(number)
    for names in (*_CORNER_NAMES, *_SIDE_NAMES):
        for numbers in zip(*(given[name] for name in names.split()), strict=False):
            box = _given(numbers, "named", sides=names in _SIDE_NAMES)
            if box is not None:
                return replace(box, named=True)
    return None


def _list(text: str) -> Written | None:
    """`[x0, y0, x1, y1]`, with square or round brackets, commas or spaces, in JSON or not."""
    return _first(_LIST, text, "box_2d" if re.search(r"\bbox_2d\b", text) else "list")


def _corners(text: str) -> Written | None:
    """`(x0, y0), (x1, y1)`, or two pairs of which the second is said to be the lower one."""
    return next((box for each in _CORNERS if (box := _first(each, text, "corners")) is not None), None)


def _row(text: str) -> Written | None:
    """Four numbers in a row, no fifth and no bracket beside them: what a bracket holds is a list, or cut off."""
    for found in _ROW.finditer(text):
        numbers = re.findall(_DIGITS, found[0])
        start, end = found.span()
        before, after = text[max(start - 2, 0) : start].strip(), text[end : end + 2].strip(" ,")
        alone = before[-1:] not in {*"[({<"} and after[:1] not in {*"])}>"}
        if len(numbers) == 4 and alone and (box := _given(numbers, "numbers")) is not None:
            return box
    return None


FORMS: dict[str, Callable[[str], Written | None]] = {
    "loc0000": _paligemma,
    "loc_0": _florence,
    "patch_index": _kosmos,
    "marked": _marked,
    "named": _named,
    "list": _list,
    "corners": _corners,
    "numbers": _row,
}
"""The forms by name, in the order in which they are looked for."""
