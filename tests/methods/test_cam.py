"""Class activation maps of the built-in model's encoder, and the box that is cut out of a map."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from wherein import images
from wherein.geometry import iou
from wherein.methods.cam import Cam, _largest

EXAMPLES = files("wherein") / "examples"


def test_the_box_of_the_largest_component() -> None:
    heat = np.zeros((6, 8), np.float32)
    heat[0, 0:2] = 1.0  # hot and small
    heat[2:5, 3:7] = 0.5
    heat[5, 0] = 0.29
    assert _largest(heat).tolist() == [3, 2, 7, 5]


def test_a_map_that_shows_nothing_is_the_whole_image() -> None:
    assert _largest(np.zeros((6, 8), np.float32)).tolist() == [0, 0, 8, 6]


@pytest.fixture(scope="module")
def cam(default_vlm: Any) -> Cam:
    return Cam(default_vlm)


def test_a_phrase_finds_its_classes(cam: Cam) -> None:
    names = cam.vlm.classes
    assert {names[i] for i in cam.classes("the tabby")} <= {pair for pair in names if "tabby" in pair}
    assert len(cam.classes("a dog")) > 100  # a kind stands for all its classes
    assert 0 < len(cam.classes("my grandmother's slippers")) < 10  # neither: the nearest names


@pytest.mark.parametrize("name", ["cat.jpg", "coffee.jpg"])
def test_the_map_lies_on_the_object(cam: Cam, name: str) -> None:
    pixels = images.load(str(EXAMPLES / name))
    truth = json.loads((EXAMPLES / "truth.json").read_text())[name]
    (grounding,) = cam.ground(pixels, [truth["phrase"]])
    heat = grounding.heatmap
    assert heat is not None and heat.dtype == np.float32 and heat.min() == 0 and heat.max() == 1
    assert iou(grounding.boxes, [truth["box"]])[0, 0] > 0.3
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    x0, y0, x1, y1 = truth["box"]
    assert x0 <= (x + 0.5) / heat.shape[1] * pixels.shape[1] <= x1
    assert y0 <= (y + 0.5) / heat.shape[0] * pixels.shape[0] <= y1


def test_a_blank_image_still_gets_a_box(cam: Cam) -> None:
    (grounding,) = cam.ground(np.zeros((50, 80, 3), np.uint8), ["a dog"])
    assert len(grounding.boxes) == 1 and np.isfinite(grounding.scores).all()
