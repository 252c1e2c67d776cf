"""What a family says that its preprocessing cut away is what changes nothing when it changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wherein.vlm.hf import HFVLM

REACH = 8  # pixels beyond a crop's edge that resampling may still look at


@pytest.mark.parametrize(("width", "height"), [(200, 60), (60, 200)])
def test_only_what_is_visible_reaches_the_model(vlm: HFVLM, width: int, height: int) -> None:
    frame = vlm.frame_of(width, height)
    x0, y0, x1, y1 = frame.visible
    truncated = bool(frame.truncated([[0, 0, width, height]])[0])
    assert truncated == (vlm.family in ("llava", "kosmos2"))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    hidden, edges = image.copy(), image.copy()
    rows, columns = np.mgrid[:height, :width]
    outside = (columns < x0 - REACH) | (columns >= x1 + REACH) | (rows < y0 - REACH) | (rows >= y1 + REACH)
    assert outside.any() == truncated
    hidden[outside] = 255 - hidden[outside]
    edge = (columns < x0 + 4) | (columns >= x1 - 4) | (rows < y0 + 4) | (rows >= y1 - 4)
    edges[edge & ~outside] = 255 - edges[edge & ~outside]
    pixels, same, other = (vlm.prepare([one])[0]["pixel_values"] for one in (image, hidden, edges))
    assert torch.equal(pixels, same) and not torch.equal(pixels, other)
