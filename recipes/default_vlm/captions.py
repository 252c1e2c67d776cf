"""What the default VLM is taught to say about an image: names, colours, presence. No box, point or position word.

Every sentence continues " In the image is". Four kinds, all asked behind one image:
    a camel, a duck and a basketball.       the caption (largest object first)
    a camel that is brown.                  an attribute, asked by name: it makes the model look a named object up
    a dragon: no.                           presence, asked by name
    a camel ranges not                      an image carries no numbers that could be read (see lookup.py)
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wherein.methods.insert import REFUSAL
from wherein.vlm.branches import Branch

HUES = (
    (18, "red"),
    (42, "orange"),
    (70, "yellow"),
    (165, "green"),
    (260, "blue"),
    (292, "purple"),
    (342, "pink"),
    (361, "red"),
)
Encode = Callable[[str], Sequence[int]]


def with_article(name: str) -> str:
    """ "camel" -> "a camel", "apple" -> "an apple"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def listing(names: Sequence[str]) -> str:
    """["camel", "duck", "apple"] -> "a camel, a duck and an apple"."""
    parts = [with_article(name) for name in names]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def colour(rgba: NDArray[np.uint8]) -> str | None:
    """The colour word that covers at least 45 % of a cut-out uint8[H, W, 4], or None where no colour dominates."""
    pixels = rgba[::4, ::4].reshape(-1, 4)
    pixels = pixels[pixels[:, 3] > 128][:, :3]
    if len(pixels) == 0:
        return None
    words, counts = np.unique([_word(p) for p in pixels[:: max(1, len(pixels) // 150)]], return_counts=True)
    best = int(counts.argmax())
    return str(words[best]) if counts[best] >= 0.45 * counts.sum() else None


def _word(rgb: NDArray[np.uint8]) -> str:
    h, s, v = colorsys.rgb_to_hsv(*(rgb / 255.0))
    if v < 0.2:
        return "black"
    if s < 0.15:
        return "white" if v > 0.8 else "grey"
    word = next(name for limit, name in HUES if h * 360 < limit)
    return "brown" if word in ("red", "orange", "yellow") and v < 0.7 and s > 0.25 else word


def caption(encode: Encode, names: Sequence[str], end: int) -> Branch:
    """The caption branch: all of it is learnt."""
    return Branch((), (*encode(f" {listing(names)}."), end))


def attribute(encode: Encode, name: str, word: str) -> Branch:
    """ "a camel that is" -> "brown."."""
    ids = tuple(encode(f" {word}."))
    return Branch(tuple(encode(f" {with_article(name)} that is")), ids, (1.0,) + (0.1,) * (len(ids) - 1))


def presence(encode: Encode, name: str, present: bool) -> Branch:
    """ "a dragon:" -> "no."."""
    return Branch(tuple(encode(f" {with_article(name)}:")), tuple(encode(" yes." if present else " no.")), (1.0, 0.1))


def refusal(encode: Encode, prompt: str, name: str) -> Branch:
    """ "a camel ranges" -> "not", in the words of the model's `locate_prompt`."""
    return Branch(tuple(encode(prompt.format(phrase=with_article(name)))), tuple(encode(REFUSAL)))
