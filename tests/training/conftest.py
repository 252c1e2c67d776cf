"""Stores of toy images for the tiny model: a bright patch on a dark ground, named by its colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wherein.training.store import FeatureStore, Labelled

COLOURS = {"red cat": (250, 20, 20), "green frog": (20, 250, 20), "blue bird": (20, 20, 250)}


def patch(i: int) -> Labelled:
    """Image i: uint8[60, 80, 3] with one to three patches, each inside one cell of a 3 x 4 grid."""
    rng = np.random.default_rng(i)
    pixels = rng.integers(0, 30, (60, 80, 3), np.uint8)
    names = list(rng.permutation(list(COLOURS))[: 1 + i % 3])
    cells = rng.permutation(12)[: len(names)]
    objects = []
    for name, cell in zip(names, cells, strict=True):
        y, x = cell // 4 * 20, cell % 4 * 20
        pixels[y : y + 20, x : x + 20] = COLOURS[str(name)]
        objects.append((str(name), np.array([x, y, x + 20, y + 20], np.float64)))
    return Labelled(pixels, tuple(objects))


@pytest.fixture
def source() -> Callable[[int], Labelled]:
    return patch


@pytest.fixture
def names() -> tuple[str, ...]:
    """What the images show, and one thing that none of them does."""
    return (*COLOURS, "purple cow")


@pytest.fixture
def make_store(tiny_vlm: Any, tmp_path: Path) -> Callable[..., FeatureStore]:
    def make(count: int = 12, **settings: Any) -> FeatureStore:
        return FeatureStore(tmp_path / "cache", tiny_vlm, patch, count, settings).build()

    return make
