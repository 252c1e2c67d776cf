"""What a model's free words are: a box, and which, or one of the ways to name none.

Notable choices:
- one box an answer, the first, and the truth is never looked at: the best of several readings is no answer of a model
- what a form says by itself is believed: location tokens and markers have a unit of their own, percents a sign, and
  four numbers of at most 1 are fractions. Whether other numbers are pixels or thousandths no text tells: that is a
  `Convention`, the same for all answers of a model, stated by the caller or settled by the rule of `settle`
- nothing is mended: corners out of order, a box of which nothing is inside the picture, or a number of percents beside
  one of pixels, are no box
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wherein.boxforms import MOST, PIXELS, THOUSANDTHS, Convention, Written, written

VERDICTS = ("box", "chatty", "echo", "empty", "unparsable")
"""What an answer can be: a box; text without one; the prompt again; nothing; numbers or brackets that are no box."""
_RUN = 3  # consecutive words of the prompt that are an echo, and no chance
_LINKS = "and|or|to|by|x|from|at|of|in|on|px|pixels?|percent|per"
# A number that counts nothing, as in "at 120 and 30": no "2 cats", no "2D", and no "1. A cat", which numbers a list.
_PLACE = re.compile(rf"\d++(?:\.\d++)?+(?! ?-?(?!(?:{_LINKS})\b)[^\W\d_])(?![.)] [^\W\d_])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Reading:
    """A box float64[4] xyxy in pixels of the picture that the model was given, and how it was read: the form in which
    it was written (`Written.form`), and the name of the convention that its numbers follow."""

    box: NDArray[np.float64]
    form: str
    convention: str


def read(text: str, width: int, height: int, convention: Convention) -> Reading | None:
    """The first box that an answer about a `width` x `height` picture names; None where it names none."""
    found = written(text)
    if found is None:
        return None
    meaning = found.meaning(convention)
    box = meaning.box(found.numbers, width, height)
    return None if box is None else Reading(box, found.form, str(meaning))


def settle(answers: Sequence[tuple[Written, int, int]]) -> tuple[Convention, str]:
    """The convention of a model that states none, from all its answers about `width` x `height` pictures, and why.

    The rule, once for the model and never for one answer: where most bare boxes are lists under `box_2d`, Gemini's key,
    they are 0-1000 with y first; else, where more than one in ten reaches out of its picture if taken as pixels and
    no number is above 1000, they are 0-1000; else they are pixels.
    """
    bare = [(found, width, height) for found, width, height in answers if found.bare]
    if not bare:
        return PIXELS, "rule: no answer has any"
    keyed = sum(found.form == "box_2d" for found, _, _ in bare)
    if 2 * keyed > len(bare):
        return replace(THOUSANDTHS, y_first=True), f"rule: {keyed} of {len(bare)} boxes have the key box_2d"
    outside = sum(bool((found.numbers > [width, height] * 2).any()) for found, width, height in bare)
    if 10 * outside > len(bare) and all((found.numbers <= 1000).all() for found, _, _ in bare):
        return THOUSANDTHS, f"rule: as pixels, {outside} of {len(bare)} boxes would reach out of the picture"
    return PIXELS, f"rule: as pixels, {len(bare) - outside} of {len(bare)} boxes lie in the picture"


def verdict(text: str, prompt: str, boxed: bool) -> str:
    """Which of `VERDICTS` an answer to `prompt` is; `boxed`: a box could be read.

    An echo holds the whole prompt, or is nothing but three or more consecutive words of it. Unparsable is what holds a
    square, curly or angle bracket, or at least two numbers that count nothing.

    >>> [verdict(text, "Localise the cat.", False) for text in ("2 cats and 3 dogs", "at 120 and 30")]
    ['chatty', 'unparsable']
    """
    if boxed:
        return "box"
    said, asked = _words(text), _words(prompt)
    if asked in said or (len(said.split()) >= _RUN and said in asked):
        return "echo"
    if re.search(r"[][{}<>]", text[:MOST]) or len(_PLACE.findall(" ".join(text[:MOST].split()))) >= 2:
        return "unparsable"
    return "chatty" if said.strip() else "empty"


def _words(text: str) -> str:
    """The words in lower case, one space around each."""
    return " ".join(["", *re.findall(r"[^\W_]+", text[:MOST].lower()), ""])
