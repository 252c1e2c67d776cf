"""Worked examples: images with one phrase and its box each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wherein.synth import Backgrounds, ObjectBank, Scenes, is_held_out
from wherein.synth.scene import PRESETS


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
    scenes = Scenes(ObjectBank.load().without(is_held_out), Backgrounds.load(), side, seed, PRESETS["paper"])
    made = []
    for i in range(count):
        composite, rng = scenes.begin(i)
        thing = composite.objects[rng.integers(len(composite.objects))]
        made.append(Example(composite.image, thing.name, thing.box))
    return made
