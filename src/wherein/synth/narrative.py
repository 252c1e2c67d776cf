"""Self-made narratives: what is on a composite in a sentence, each of its words with the object that it speaks of.

They stand for Localized Narratives (Pont-Tuset et al., ECCV 2020), where a mouse points at what is being said.

Notable choices:
- objects come in any order, so that nothing but the image tells where the next one is
- an object is told by its whole name, and by its place where that is true of it alone: both words are the object's
- articles and what joins objects belong to none
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wherein.phrases import noun_phrase
from wherein.synth.referral import callings

_JOINS = ((", ", " and "), (", then ", " and then "))  # between objects, and before the last one
_WORD = re.compile(r"[^\s,.]+")
NOBODYS = frozenset(("a", "an", "the", "and", "then", "on", "at", "in", "of", "with"))
"""Words of a narrative that belong to no object."""


class Told(NamedTuple):
    """A word of a narrative: its text, where it is in the whole (from, to), and its object's place in the list of
    objects, None for a word that belongs to none."""

    text: str
    start: int
    end: int
    thing: int | None


@dataclass(frozen=True)
class Narrative:
    """A sentence and its words."""

    text: str
    words: tuple[Told, ...]


def narrate(names: Sequence[str], phrases: Sequence[Sequence[str]], rng: np.random.Generator) -> Narrative:
    """A narrative of objects of these names, each with the phrases that are true of it alone (see `referrals`).

    Equal arguments and an equal generator state give an equal narrative.

    >>> phrases = [["red mug"], ["tent", "tent on the left"], []]
    >>> told = narrate(["red mug", "tent", "duck"], phrases, np.random.default_rng(5))
    >>> told.text
    'a red mug, then a tent on the left and then a duck.'
    >>> [(word.text, word.thing) for word in told.words if word.thing is not None]
    [('red', 0), ('mug', 0), ('tent', 1), ('left', 1), ('duck', 2)]
    """
    between, before_last = _JOINS[int(rng.integers(len(_JOINS)))]
    order = rng.permutation(len(names)).tolist()
    text, words = "", list[Told]()
    for place, thing in enumerate(order):
        join = "" if not place else before_last if thing == order[-1] else between
        for part in (join, noun_phrase(_mention(names[thing], phrases[thing], rng))):
            for found in _WORD.finditer(part):
                start, word = len(text) + found.start(), found.group()
                words.append(Told(word, start, start + len(word), None if word in NOBODYS else thing))
            text += part
    return Narrative(f"{text}.", tuple(words))


def question(name: str, phrases: Sequence[str], rng: np.random.Generator) -> str:
    """One of the phrases of an object as people ask for it: as it is, with "the", or with an article.

    >>> {question("tent", ["tent", "left tent"], np.random.default_rng(i)) for i in range(40)} == {
    ...     "tent", "the tent", "a tent", "left tent", "the left tent"}
    True
    """
    phrase = phrases[int(rng.integers(len(phrases)))]
    if phrase.startswith("the "):
        return phrase
    forms = [phrase, f"the {phrase}"]
    if phrase.startswith(callings(name)):  # nobody says "a left tent"
        forms.append(noun_phrase(phrase))
    return forms[int(rng.integers(len(forms)))]


def _mention(name: str, phrases: Sequence[str], rng: np.random.Generator) -> str:
    """The name alone, or with its place where a phrase says it behind the name and without speaking of another one."""
    known = [phrase for phrase in phrases if phrase.startswith(name) and " other " not in phrase.removeprefix(name)]
    return known[int(rng.integers(len(known)))] if known else name
