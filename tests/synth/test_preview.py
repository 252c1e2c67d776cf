"""The contact sheet: every composite on it, every box where the object is."""

import numpy as np
import pytest

from wherein.synth import Composite, Placed, Scene
from wherein.synth.preview import preview


def scene(box: tuple[float, float, float, float], *phrases: str, absent: str | None = None) -> Scene:
    image = np.full((32, 32, 3), 128, np.uint8)
    return Scene(Composite(image, [Placed("tent", np.array(box), 0, 1.0)]), (phrases,), absent)


def test_a_box_lies_on_its_object() -> None:
    sheet = preview([scene((8, 8, 24, 16), "tent")]).astype(int)
    orange = np.abs(sheet - (0xD5, 0x5E, 0x00)).max(2) < 30
    rows, columns = np.nonzero(orange[: 20 + 320])  # without the caption
    scale, corner = 320 / 32, 20
    found = (columns.min(), rows.min(), columns.max(), rows.max())
    assert np.abs(np.array(found) - corner - np.array([8, 8, 24, 16]) * scale).max() <= 3


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (5, 2, 4)])
def test_the_sheet_has_room_for_all(count: int, rows: int, columns: int) -> None:
    sheet = preview([scene((0, 0, 32, 32), absent="camel")] * count)
    height, width = sheet.shape[:2]
    assert width == columns * 340 + 20 and (height - 20) % rows == 0
    grey = (sheet == 128).all(2)
    assert abs(grey.sum() / (count * 320 * 320) - 1) < 0.1


def test_a_caption_stays_under_its_image() -> None:
    sheet = preview([scene((0, 0, 32, 32), "a very long phrase " * 9)] * 2)
    assert (sheet[:, 340:360] == 255).all()  # between the two
