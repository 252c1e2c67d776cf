"""Worked examples: images with one phrase and its box each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wherein.synth import PAPER, Backgrounds, ObjectBank, compose, is_held_out


@dataclass(frozen=True, eq=False)
class Example:
    """An image uint8[H, W, 3], a phrase, and its box float64[4], xyxy in pixels of the image."""

    image: NDArray[np.uint8]
    phrase: str
    box: NDArray[np.float64]


def composites(count: int, side: int, seed: int) -> Sequence[Example]:
    """Examples that need no labels: one object each of `count` composites, `side` pixels square, as PIN is trained on.

    No category of COCO or VOC is among them; equal arguments give equal examples.
    """
    bank, grounds = ObjectBank.load().without(is_held_out), Backgrounds.load()
    made = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        composite = compose(grounds.sample(rng, side), bank, rng, PAPER)
        thing = composite.objects[rng.integers(len(composite.objects))]
        made.append(Example(composite.image, thing.name, thing.box))
    return made
