"""Names of what is not on a composite, hard ones among them: another colour, or the same noun told otherwise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice

import numpy as np

from wherein.synth.compose import Placed
from wherein.synth.referral import may_be_one

HARD = 0.5
"""Share of the composites that get a hard one, where there is any."""
_TRIES = 100
_COLOURS = ("black", "blue", "green", "red", "white", "yellow")  # that nobody takes for another of them


class Negatives:
    """Draws absent names from a bank's `names`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._by_noun = defaultdict[str, list[str]](list)
        for name in self._names:
            self._by_noun[name.split()[-1]].append(name)

    def draw(self, objects: Sequence[Placed], rng: np.random.Generator) -> str | None:
        """A name that is true of none of the objects, or None where a hundred tries find none (a bank of one name)."""
        here = [thing.name for thing in objects]
        if rng.random() < HARD:
            hard = [name for there in here for name in self._similar(there) if is_absent(name, here)]
            if hard:
                return hard[int(rng.integers(len(hard)))]
        for _ in range(_TRIES):
            name = self._names[int(rng.integers(len(self._names)))]
            if is_absent(name, here):
                return name
        return None

    def _similar(self, name: str) -> list[str]:
        """Names of the same noun, and the name in other colours where it has one."""
        first, _, noun = name.partition(" ")
        recoloured = [f"{colour} {noun}" for colour in _COLOURS] if first in _COLOURS and noun else []
        return self._by_noun[name.split()[-1]] + recoloured


def as_many_absent(names: Sequence[str], here: Sequence[str], rng: np.random.Generator) -> list[str]:
    """As many of the names as there are `here`, drawn at random, that are true of nothing there; fewer where there are
    no more."""
    absent = (str(name) for name in rng.permutation(names) if is_absent(name, here))
    return list(islice(absent, len(here)))


def is_absent(name: str, here: Sequence[str]) -> bool:
    """Whether a name is true of nothing that goes by one of the names `here`, as far as names and categories tell (see
    `may_be_one`)."""
    return not any(may_be_one(name, there) for there in here)
