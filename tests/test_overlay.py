"""Sheets of heat maps: what is painted where, on images and heat maps of every size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein import overlay
from wherein.grounding import Grounding
from wherein.overlay import COLUMNS, WIDEST, heat_sheet

SIZES = [(1, 1), (1, 5000), (5000, 1), (5, 300), (20, 20), (64, 48), (640, 480), (200, 1800), (3000, 2000)]
GAP = 24


def grounding(
    phrase: str,
    heatmap: NDArray[np.float32] | None,
    boxes: Sequence[Sequence[float]] = (),
    absent: bool = False,
) -> Grounding:
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Grounding(phrase, array, np.linspace(0.87, 0.1, len(array)), "fake", absent, None, heatmap=heatmap)


def spot(rows: int, columns: int, row: int, column: int) -> NDArray[np.float32]:
    heat = np.zeros((rows, columns), np.float32)
    heat[row, column] = 0.25
    return heat


def grey(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 128, np.uint8)


def panel(sheet: NDArray[np.uint8], width: int, height: int, row: int = 0, column: int = 0) -> NDArray[np.int64]:
    """The pixels of a panel that is as large as its image, on a sheet whose rows have captions of one line."""
    step = sheet.shape[0] - 2 * GAP if row == 0 else (sheet.shape[0] - GAP) // 2
    top, left = GAP + row * step, GAP + column * (width + GAP)
    return sheet[top : top + height, left : left + width].astype(np.int64)


def strip(sheet: NDArray[np.uint8], height: int) -> NDArray[np.int64]:
    """What is under the only panel."""
    return sheet[GAP + height :].astype(np.int64)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_every_size(width: int, height: int, count: int) -> None:
    image, heat = grey(width, height), np.random.default_rng(0).random((10, 10), dtype=np.float32)
    boxes = [[0, 0, width, height], [-9, -9, 9999, 9999]]
    sheet = heat_sheet(image, [grounding("a very long phrase " * 9, heat, boxes)] * count)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3 and sheet.flags.writeable
    assert 240 < sheet.shape[1] <= WIDEST and sheet.shape[0] > 70
    assert (image == 128).all()
    for edge in (sheet[:GAP], sheet[-GAP // 2 :], sheet[:, :GAP], sheet[:, -GAP:]):
        assert (edge == 255).all()  # nothing hangs over the margin, captions included


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3), (24, 24), (900, 700)])
def test_heat_maps_of_every_resolution(shape: tuple[int, int]) -> None:
    heat = np.random.default_rng(0).random(shape, dtype=np.float32)
    given = heat.copy()
    assert panel(heat_sheet(grey(400, 300), [grounding("cat", heat)]), 400, 300).std() < 70
    assert (heat == given).all()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 7), (9, 4), (5, 5)])
def test_the_peak_is_where_it_is_on_the_image_and_the_brightest_and_warmest(row: int, column: int) -> None:
    seen = panel(heat_sheet(grey(400, 300), [grounding("cat", spot(10, 10, row, column))]), 400, 300)
    light, warmth = seen.sum(axis=2), seen[..., 0] - seen[..., 2]
    y, x = row * 30 + 15, column * 40 + 20
    brightest = np.unravel_index(light.argmax(), light.shape)
    assert light[y, x] > light.max() - 30 > light.min() + 100
    assert (brightest[0] // 30, brightest[1] // 40) == (row, column)
    assert warmth[y, x] > 20 > 3 * np.abs(warmth[(y + 150) % 300, (x + 200) % 400])
    cold = np.abs(np.mgrid[0:300, 0:400] - np.array([y, x])[:, None, None]) > np.array([90, 120])[:, None, None]
    assert (seen[cold.any(axis=0)] == seen[(y + 150) % 300, (x + 200) % 400]).all()
    assert np.ptp(seen[(y + 150) % 300, (x + 200) % 400]) == 0  # grey where there is no evidence


def test_the_heat_is_smooth_and_never_beyond_its_own_range() -> None:
    heat = overlay._smooth(np.kron([[0, 1], [1, 0]], np.ones((5, 5))).astype(np.float32), 400, 300)
    assert heat.shape == (300, 400) and heat.min() == 0 and heat.max() == 1
    assert np.abs(np.diff(heat, axis=0)).max() < 0.1 and np.abs(np.diff(heat, axis=1)).max() < 0.1


def test_the_object_is_seen_under_the_heat() -> None:
    image = grey(400, 300)
    image[:, ::2] = 60
    for heat in (np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)):
        seen = panel(heat_sheet(image, [grounding("cat", heat)]), 400, 300)
        assert (seen[:, 1::2].sum(axis=2) - seen[:, ::2].sum(axis=2) > 30).all()


def test_the_image_is_grey_and_dim() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    seen = panel(heat_sheet(image, [grounding("cat", np.zeros((4, 4), np.float32))]), 400, 300)
    assert (np.ptp(seen, axis=2) == 0).all() and seen.max() <= 180 and seen.std() > 10


def test_the_heat_grows_from_zero_even_where_every_value_is_high() -> None:
    constant, zero = (heat_sheet(grey(400, 300), [grounding("cat", np.full((2, 2), v, np.float32))]) for v in (3, 0))
    assert (panel(constant, 400, 300).sum(axis=2) > panel(zero, 400, 300).sum(axis=2) + 100).all()


def test_what_is_not_finite_is_cold() -> None:
    heat = np.ones((10, 10), np.float32)
    heat[:, 5:] = [np.nan, np.inf, -np.inf, np.nan, np.inf]
    seen = panel(heat_sheet(grey(400, 300), [grounding("cat", heat)]), 400, 300)
    assert (np.ptp(seen[:, 260:], axis=2) == 0).all() and (seen[:, :140, 0] - seen[:, :140, 2] > 20).all()
    heat_sheet(grey(400, 300), [grounding("cat", np.full((3, 3), np.nan, np.float32))])


def test_a_negative_value_is_the_low_end() -> None:
    heat = np.array([[-2, 4]], np.float32)
    assert overlay._finite(heat)[1:] == (-2, 4)
    assert overlay._finite(-heat)[1:] == (-4, 2)
    assert overlay._finite(np.abs(heat))[1:] == (0, 4)
    seen = panel(heat_sheet(grey(400, 300), [grounding("cat", heat)]), 400, 300)
    assert np.ptp(seen[:, :90], axis=2).max() == 0 and (np.diff(seen[150, :, 0]) >= -20).all()


def test_the_boxes_lie_on_the_heat_in_pixels_of_the_image() -> None:
    hot = np.ones((4, 4), np.float32)
    box = [[100, 120, 300, 250]]
    for scale, width, height in ((1, 400, 300), (0.25, 12000, 40)):
        scaled = [[value / scale for value in box[0]]] if scale == 1 else [[400, 10, 8000, 30]]
        bare = heat_sheet(grey(width, height), [grounding("cat", hot)])
        drawn = heat_sheet(grey(width, height), [grounding("cat", hot, scaled)])
        shown = min(1.0, (WIDEST - 2 * GAP) / width)
        tall = round(height * shown)
        painted = (bare != drawn).any(axis=2)[GAP : GAP + tall, GAP:-GAP]
        left, top, right, bottom = (round(value * shown) for value in scaled[0])
        assert painted[(top + bottom) // 2, [left, right]].all() and painted[[top, bottom], (left + right) // 2].all()
        line = drawn[GAP + (top + bottom) // 2, GAP + left].astype(int)
        assert line[2] - line[0] > 150  # cold on warm
        if scale == 1:
            rows, columns = np.nonzero(painted)
            assert (rows.min(), columns.min()) >= (116, 96) and (rows.max(), columns.max()) <= (254, 304)
            assert not painted[126:245, 106:295].any()


def test_groundings_without_heat_map_are_left_out() -> None:
    image, cat = grey(400, 300), grounding("cat", spot(4, 4, 1, 1), [[9, 9, 99, 99]])
    alone = heat_sheet(image, [cat])
    assert (heat_sheet(image, [grounding("dog", None, [[1, 1, 50, 50]]), cat, grounding("x", None)]) == alone).all()


@pytest.mark.parametrize("groundings", [[], [grounding("cat", None, [[1, 1, 50, 50]])]])
def test_no_heat_map_at_all_is_refused(groundings: list[Grounding]) -> None:
    with pytest.raises(ValueError, match="none of the groundings has a heat map: the method"):
        heat_sheet(grey(40, 30), groundings)


def test_a_panel_for_each_phrase_side_by_side() -> None:
    sheet = heat_sheet(grey(400, 300), [grounding("a", spot(10, 10, 2, 2)), grounding("b", spot(10, 10, 8, 8))])
    assert sheet.shape[1] == 2 * 400 + 3 * GAP
    for column, (y, x) in enumerate([(75, 100), (255, 340)]):
        light = panel(sheet, 400, 300, column=column).sum(axis=2)
        assert light[y, x] == light.max() and light.argmax() // 400 == pytest.approx(y, abs=20)


def test_panels_wrap_into_rows() -> None:
    heats = [spot(10, 10, n, n) for n in range(5)]
    sheet = heat_sheet(grey(512, 512), [grounding("a", heat) for heat in heats])
    assert sheet.shape[1] == 3 * 512 + 4 * GAP and 1.2 < sheet.shape[1] / sheet.shape[0] < 1.8
    step = (sheet.shape[0] - GAP) // 2
    fifth = sheet[GAP + step : GAP + step + 512, 2 * GAP + 512 : 2 * GAP + 1024].astype(int).sum(axis=2)
    assert fifth[230, 230] == fifth.max()
    assert (sheet[GAP + step :, 3 * GAP + 1024 :] == 255).all()  # the place that no phrase fills


@pytest.mark.parametrize(
    ("width", "height", "count", "columns"),
    [(640, 480, 1, 1), (640, 480, 2, 2), (512, 512, 4, 2), (512, 512, 5, 3), (640, 480, 6, 3), (200, 1800, 8, 4)]
    + [(2000, 120, 4, 1), (512, 512, 8, 4), (512, 512, 40, 4)],
)
def test_the_rows_make_a_sheet_of_a_handy_shape(width: int, height: int, count: int, columns: int) -> None:
    assert overlay._best_grid(width, height, [("cat", "")] * count).columns == columns <= COLUMNS


@pytest.mark.parametrize(
    ("size", "panel"),
    [((451, 300), (451, 300)), ((6000, 4000), (2352, 1568)), ((1000, 8000), (200, 1600)), ((20, 10), (320, 160))],
)
def test_huge_images_are_shown_smaller_and_tiny_ones_larger(size: tuple[int, int], panel: tuple[int, int]) -> None:
    assert overlay._grid(1, *size, [("cat", "")]).panel == panel


def test_the_caption() -> None:
    heat = spot(2, 2, 0, 0)
    assert overlay._caption(grounding("cat", heat, [[0, 0, 9, 9], [0, 0, 5, 5]])) == ("cat", " 0.87")
    assert overlay._caption(grounding("unicorn", heat, absent=True)) == ("no unicorn", "")
    assert overlay._caption(grounding("unicorn", heat)) == ("unicorn", " unanswered")


def test_an_absent_phrase_still_shows_its_heat() -> None:
    seen = panel(heat_sheet(grey(400, 300), [grounding("unicorn", spot(10, 10, 2, 2), absent=True)]), 400, 300)
    assert seen[75, 100].sum() == seen.sum(axis=2).max() > seen[250, 350].sum() + 100


def test_the_strip_tells_phrase_from_phrase_and_value_from_value() -> None:
    image, heat = grey(400, 300), spot(4, 4, 1, 1)
    cat, absent, twice = grounding("cat", heat), grounding("cat", heat, absent=True), grounding("cat", 2 * heat)
    strips = [strip(heat_sheet(image, [one]), 300) for one in (cat, absent, twice)]
    assert all((one < 100).any() for one in strips)
    assert (strips[0] != strips[1]).any() and (strips[0] != strips[2]).any()
    assert (panel(heat_sheet(image, [cat]), 400, 300) == panel(heat_sheet(image, [twice]), 400, 300)).all()


def test_the_colour_bar_shows_the_colours_as_they_are_seen() -> None:
    below = strip(heat_sheet(grey(400, 300), [grounding("cat", spot(4, 4, 1, 1))]), 300)
    row = below[np.ptp(below, axis=2).sum(axis=1).argmax()]  # through the bar; text has no colour
    (coloured,) = np.nonzero(np.ptp(row, axis=1) > 10)
    low, high = row[coloured[0] - 9], row[coloured[-1]]
    cold, hot = (
        panel(heat_sheet(grey(400, 300), [grounding("", np.full((1, 1), v, np.float32))]), 400, 300) for v in (0, 1)
    )
    assert len(coloured) > 200 and (coloured < GAP + 400).all()
    assert np.abs(low - cold[0, 0]).max() < 12 and np.abs(high - hot[0, 0]).max() < 12


def test_the_colour_bar_stands_between_its_values() -> None:
    image, heat = grey(400, 300), spot(4, 4, 1, 1)
    plain, higher, lower = (
        strip(heat_sheet(image, [grounding("cat", one)]), 300) for one in (heat, 2 * heat, heat - 1)
    )
    first, last = slice(GAP, GAP + 14), slice(GAP + 380, GAP + 400)
    assert (plain[:25, first] < 60).any() and (plain[:25, last] < 60).any()
    assert (plain[:25, first] == higher[:25, first]).all() and (plain[:25, last] != higher[:25, last]).any()
    assert (plain[:25, first] != lower[:25, first]).any()


def test_captions_are_wrapped_and_then_cut() -> None:
    font = overlay.load_font(20)
    assert overlay._wrap("the red mug", " 0.87", font, 400) == ["the red mug 0.87"]
    lines = overlay._wrap("the red mug on the left of the table", " 0.87", font, 200)
    assert " ".join(lines) == "the red mug on the left of the table 0.87" and 1 < len(lines) <= 3
    assert overlay._wrap("the red mug", " 0.87", font, round(font.getlength("the red mug")) + 1) == [
        "the red mug",
        "0.87",
    ]
    long = overlay._wrap("the red mug on the left of the table " * 4, " 0.87", font, 200)
    assert len(long) == 3 and long[2].endswith("… 0.87")
    word = overlay._wrap("m" * 500, " 0.87", font, 200)
    assert len(word) == 1 and word[0].endswith("m… 0.87")
    assert all(font.getlength(line) <= 200 for line in [*lines, *long, *word])


def test_importing_draws_in_nothing_heavy() -> None:
    program = "import sys, wherein.overlay; print({'supervision', 'matplotlib', 'torch'} & set(sys.modules) or 'light')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "light", done.stderr
