"""The constant box."""

from __future__ import annotations

from typing import Any

import numpy as np

from wherein.methods.centre import BOX, Centre


def test_the_same_part_of_every_image(tiny_vlm: Any) -> None:
    x0, y0, x1, y1 = BOX
    assert 0 < x0 < x1 < 1 and 0 < y0 < y1 < 1
    for width, height in ((100, 200), (640, 480)):
        (grounding,) = Centre(tiny_vlm).ground(np.zeros((height, width, 3), np.uint8), ["a cat"])
        np.testing.assert_allclose(grounding.boxes, [[x0 * width, y0 * height, x1 * width, y1 * height]])
        assert grounding.scores.tolist() == [0.5] and not grounding.absent and grounding.absent_probability is None
