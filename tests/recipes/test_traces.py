"""How recipes/pixel_small/traces.py sets pairs of models beside each other."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

IMAGES = list(range(40))


@pytest.fixture
def worth(small: Callable[[str], ModuleType]) -> Any:
    return small("traces").worth


def test_a_gain_in_every_pair_is_told(worth: Any) -> None:
    sparse = np.tile(np.linspace(0, 0.5, 40), (3, 1))
    found = worth(IMAGES, sparse + [[0.1], [0.2], [0.3]], sparse)
    assert found["dense"] == pytest.approx([0.35, 0.45, 0.55]) and found["sparse"] == pytest.approx([0.25] * 3)
    assert found["difference"] == pytest.approx(0.2) and found["p"] < 0.001
    assert found["ci95"] == pytest.approx([0.1, 0.3])  # all draws of images are alike: pairs alone decide


def test_a_gain_that_hangs_on_the_pair_is_not(worth: Any) -> None:
    sparse = np.full((3, 40), 0.5)
    found = worth(IMAGES, sparse + [[0.2], [-0.1], [-0.1]], sparse)
    assert found["difference"] == pytest.approx(0, abs=1e-9) and found["p"] > 0.5
    low, high = found["ci95"]
    assert low <= -0.1 + 1e-9 and high >= 0.2 - 1e-9


def test_images_are_drawn_whole(worth: Any) -> None:
    dense = np.zeros((1, 40))
    dense[0, :20] = 1
    apart = worth(IMAGES, dense, np.zeros((1, 40)))["ci95"]
    together = worth([i // 20 for i in IMAGES], dense, np.zeros((1, 40)))["ci95"]
    assert apart[0] > 0.3 and together == [0, 1]
