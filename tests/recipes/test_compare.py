"""What recipes/pixel_small/compare.py asks, and how it sets methods beside each other."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

MUG, TENT = np.array([0.0, 0, 20, 20]), np.array([30.0, 30, 60, 60])


@pytest.fixture
def compare(small: Callable[[str], ModuleType]) -> Any:
    return small("compare")


class Finds:
    """It says that everything is in one box, or nowhere."""

    def __init__(self, box: Any) -> None:
        self.boxes = np.zeros((0, 4)) if box is None else box[None]
        self.asked: list[list[str]] = []

    def ground(self, image: Any, phrases: list[str], absent: bool) -> list[Any]:
        assert not absent
        self.asked.append(phrases)
        return [SimpleNamespace(boxes=self.boxes) for _ in phrases]


def test_methods_are_asked_alike_and_compared(compare: Any) -> None:
    objects = [[("mug", MUG), ("tent", TENT)], [("mug", MUG)], []]
    store: Any = SimpleNamespace(count=3, objects=objects, images=lambda some: [np.zeros((64, 64, 3), np.uint8)])
    methods = [Finds(None), Finds(MUG)]
    images, ious = compare.asked(store, methods, 64)
    assert images == [0, 0, 1] and ious.tolist() == [[0, 0, 0], [1, 0, 1]]
    assert methods[0].asked == methods[1].asked and len(methods[0].asked) == 2
    found = compare.compare(images, ious, ("none", "mug"))
    assert found["none"]["p50"] == 0 and found["mug"]["p50"] == found["mug"]["miou"] == pytest.approx(2 / 3)
    difference, low, high, p = found["mug"]["minus none"]
    assert difference == pytest.approx(2 / 3) and low == 0.5 and high == 1 and p < 0.01
