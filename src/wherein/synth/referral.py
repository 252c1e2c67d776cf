"""Expressions for the objects of a composite, each true of one object alone (PIN's positional referral, section 4.3).

Notable choices:
- a phrase is checked against the boxes and the pixels that hide others as they were pasted, not as they were planned
- an object that shares its name is told from the others by where it lies among them; alone, by the image's thirds
- "red apple" may be called an apple, and an apple may be red: neither name tells the two apart
- what may be one thing is told by the words of the names and by COCO's categories; that a tulip is a flower is not
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wherein.synth.compose import APART, Placed
from wherein.synth.holdout import category_of, singulars, words_of

COLOURS = (
    *("black", "blue", "brown", "golden", "gray", "green", "grey"),
    *("orange", "pink", "purple", "red", "silver", "white", "yellow"),
)
"""First words of a name that a noun may do without."""

# The words of PIN's released code. The first line of each is for any number of rivals, the second for just one.
_WORDS = {
    "left": (("left {0}", "the left {0}", "{0} on the left"), ("{0} left of the other {0}",)),
    "right": (("right {0}", "the right {0}", "{0} on the right"), ("{0} right of the other {0}",)),
    "top": (("top {0}", "the top {0}", "{0} at the top"), ("{0} above the other {0}",)),
    "bottom": (("bottom {0}", "the bottom {0}", "{0} at the bottom"), ("{0} below the other {0}",)),
    "middle": (("middle {0}", "the middle {0}", "{0} in the middle", "center {0}", "{0} in the center"), ()),
    "before": (("front {0}", "{0} in front"), ("{0} before the other {0}", "{0} in front of the other {0}")),
    "behind": (("{0} behind", "{0} in the back"), ("{0} behind the other {0}",)),
}


def referrals(objects: Sequence[Placed], side: int, positions: bool = True) -> list[tuple[str, ...]]:
    """For each object of a composite `side` pixels wide, the phrases that are true of it and of no other one, as far as
    names and categories tell (see `may_be_one`).

    Without `positions`, only names. An object may be left without any phrase.
    """
    centres = np.array([thing.box[:2] + thing.box[2:] for thing in objects]).reshape(-1, 2) / 2
    found = []
    for target, thing in enumerate(objects):
        phrases: list[str] = []
        for called in callings(thing.name):
            rivals = [i for i, other in enumerate(objects) if i != target and may_be_one(called, other.name)]
            if not all(_is_called(objects[rival].name, called) for rival in rivals):
                continue  # who takes the apple for no red one sees one red apple, and not "the left" one
            phrases += [called] if not rivals else []
            for word in _true_words(target, rivals, objects, centres, side) if positions else ():
                always, between_two = _WORDS[word]
                templates = always + between_two if len(rivals) == 1 else always
                phrases += [template.format(called) for template in templates]
        others = [other.name for other in objects if other is not thing]  # "front door" may be one's whole name
        found.append(tuple(phrase for phrase in phrases if not any(_is_called(name, phrase) for name in others)))
    return found


def callings(name: str) -> tuple[str, ...]:
    """What an object may be called: its name, and its noun where the name says a colour first."""
    colour, _, noun = name.partition(" ")
    return (name, noun) if colour in COLOURS and noun else (name,)


def may_be_one(name: str, other: str) -> bool:
    """Whether one thing may go by both names, as far as they tell: one says all that the other says, in the singular or
    plural and in one word or two ("tea pots", "blue teapot"), or their nouns differ and their COCO category does not
    ("puppy", "dog")."""
    category = category_of(name)
    if not _forms(name)[-1] & _forms(other)[-1] and category is not None and category == category_of(other):
        return True
    return _says(name, other) or _says(other, name)


def _says(name: str, other: str) -> bool:
    """Whether a name says all that the other says."""
    said = _said(name)
    return all(forms & said for forms in _forms(other)) or bool(_forms("".join(words_of(other)))[0] & said)


@lru_cache(maxsize=4096)
def _said(name: str) -> frozenset[str]:
    """All forms of a name's words, and of any two in a row as one word."""
    joined = (_forms(word + after)[0] for word, after in pairwise(words_of(name)))
    return frozenset[str]().union(*_forms(name), *joined)


@lru_cache(maxsize=4096)
def _forms(name: str) -> tuple[frozenset[str], ...]:
    """Each word of a name, as it is and in what may be its singular."""
    return tuple(frozenset(singulars(word)) for word in words_of(name))


def _is_called(name: str, called: str) -> bool:
    """Whether an object of this name is certainly meant by `called`, with which its name ends."""
    words, last = words_of(name), words_of(called)
    return words[-len(last) :] == last


def _true_words(
    target: int, rivals: Sequence[int], objects: Sequence[Placed], centres: NDArray[np.float64], side: int
) -> list[str]:
    """The position words that hold for an object; centres float64[N, 2] and `side` are in pixels."""
    if not rivals:
        low, high = centres[target] < side / 3, centres[target] > side * 2 / 3
        holds = {"left": low[0], "right": high[0], "top": low[1], "bottom": high[1], "middle": not (low | high).any()}
        return [word for word, true in holds.items() if true]
    right, left = _beyond(centres[[target, *rivals]], APART * side)
    count = len(rivals)
    between = ((left == right) & (left + right == count)).any(axis=1)
    holds = {
        "left": right[0, 0] == count,
        "right": left[0, 0] == count,
        "top": right[0, 1] == count,
        "bottom": left[0, 1] == count,
        "middle": between[0] and between.sum() == 1,
        "before": all(rival in objects[target].hides for rival in rivals),
        "behind": all(target in objects[rival].hides for rival in rivals),
    }
    return [word for word, true in holds.items() if true]


def _beyond(centres: NDArray[np.float64], apart: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of the others lie farther than `apart` on the right of (and below) each of them, and on the left (and
    above): both int64[N, 2] for centres float64[N, 2]."""
    away = centres[None] - centres[:, None]
    return (away > apart).sum(1), (away < -apart).sum(1)
